"""Derivatives in the Brain Imaging Data Structure (BIDS, Gorgolewski et al. 2016): a dataset of label maps."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.formats.case_table import read_case_table
from nnunetv2_conflunet.formats.lesions import CaseLesions
from nnunetv2_conflunet.formats.settings import ExportSettings
from nnunetv2_conflunet.formats.vocabulary import describe_columns
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.files import json_text, read_json, write_texts

BIDS_VERSION = "1.10.0"
PACKAGE = "nnunetv2_conflunet"
DESCRIPTION_FILE = "dataset_description.json"
DESCRIPTION = {
    "Name": "Lesion instances",
    "BIDSVersion": BIDS_VERSION,
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": PACKAGE, "Version": __version__}],
}
README = """\
# Lesion instances
Label maps by nnunetv2_conflunet: each lesion has a number of its own, on the grid of the image that was segmented.
The table beside each map has a row for each lesion; the JSON file explains its columns.
"""
LABEL = r"[0-9A-Za-z]+"
NAMED_AS_IN_BIDS = rf"sub-(?P<subject>{LABEL})(_ses-(?P<session>{LABEL}))?(?!.*_ses-)(_.*)?"
MISSING = "n/a"
# How the lesion table and BIDS write the same.
VALUES = {"": MISSING, "NaN": MISSING, "True": "true", "False": "false"}


@dataclass(frozen=True)
class Bids:
    """A derivative dataset.

    Attributes:
        stems: ``sub-01_ses-02`` of each case.
    """

    stems: Mapping[str, str]

    @classmethod
    def of(cls, cases: Iterable[str], settings: ExportSettings) -> "Bids":
        """Name every case by the table or the pattern of the settings, or by its own name.

        Raises:
            InputError: a case has no name, one that BIDS does not allow, or the same as another case.
        """
        found = _from_table(cases, settings.names) if settings.names else _from_pattern(cases, settings.pattern)
        faults = {}
        for case, labels in found.items():
            if wrong := [label for label in labels if not re.fullmatch(LABEL, label)]:
                faults[case] = f"{list_some(wrong)} is no label of BIDS, which has letters and digits only"
        if faults:
            raise InputError(f"{join_faults(faults)}. Name them with --names TABLE (case,subject,session).")
        stems = {case: "_ses-".join([f"sub-{labels[0]}", *labels[1:]]) for case, labels in found.items()}
        cases_of = defaultdict(list)
        for case, stem in stems.items():
            cases_of[stem].append(case)
        if same := [f"{stem} ({list_some(shared)})" for stem, shared in cases_of.items() if len(shared) > 1]:
            raise InputError(f"Several cases would get the same name: {list_some(same)}. Give each its own session.")
        return cls(stems)

    def files(self, case: str) -> list[Path]:
        """The map, its table and its sidecar."""
        stem = self.stems[case]
        folder = Path(*stem.split("_"), "anat")
        return [folder / f"{stem}_space-orig_desc-lesions_dseg{ending}" for ending in (".nii.gz", ".tsv", ".json")]

    def prepare(self, output: Path) -> None:
        """Describe the dataset, unless it is described already.

        Raises:
            InputError: the folder holds a dataset that another program made.
        """
        file = output / DESCRIPTION_FILE
        if file.exists():
            content = read_json(file)
            made_by = content.get("GeneratedBy") if isinstance(content, dict) else None
            programs = made_by if isinstance(made_by, list) else []
            if PACKAGE not in [one.get("Name") for one in programs if isinstance(one, dict)]:
                raise InputError(
                    f"{file} was not written by this command; give a folder of its own, such as "
                    f"derivatives/{PACKAGE} in that dataset."
                )
        texts = {output / "README.md": README, file: json_text(DESCRIPTION)}
        # A user may have added to them.
        if missing := {path: text for path, text in texts.items() if not path.exists()}:
            write_texts(missing)

    def write(self, lesions: CaseLesions, output: Path) -> str | None:
        """Write map, table and sidecar."""
        volume, table, sidecar = (output / file for file in self.files(lesions.case))
        rows = lesions.table.drop(columns=["id", "index", "name", "color"], errors="ignore").replace(VALUES)
        rows.insert(0, "index", lesions.numbers)
        rows.insert(1, "name", lesions.names)
        rows.insert(2, "color", [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in lesions.colors.tolist()])
        content = {
            "Description": f"Lesions of case {lesions.case}, each with a value of its own; 0 is background.",
            "SpatialReference": "orig",
            # BIDS itself defines the first three.
            **describe_columns(list(rows)[3:]),
        }
        texts = {table: rows.to_csv(sep="\t", index=False, lineterminator="\n"), sidecar: json_text(content)}
        lesions.write_nifti(volume, texts)
        return None


def _from_table(cases: Iterable[str], table: Path) -> dict[str, list[str]]:
    """Subject and, if there is one, session of each case."""
    rows = read_case_table(table, cases, ["subject"], ["session"])
    found = {
        case: (row["subject"].removeprefix("sub-"), row["session"].removeprefix("ses-")) for case, row in rows.items()
    }
    return {case: [label for label in labels if label] for case, labels in found.items()}


def _from_pattern(cases: Iterable[str], pattern: str | None) -> dict[str, list[str]]:
    try:
        compiled = re.compile(NAMED_AS_IN_BIDS if pattern is None else pattern)
    except re.error as error:
        raise InputError(f"--pattern {pattern} is not a regular expression ({error}).") from error
    if "subject" not in compiled.groupindex:
        raise InputError(f"--pattern {pattern} has no group (?P<subject>...), so nothing names the subject.")
    matches = {case: compiled.fullmatch(case) for case in cases}
    if unnamed := [case for case, match in matches.items() if match is None or not match["subject"]]:
        rule = f"do not match --pattern {pattern}" if pattern else "are not named sub-<label>[_ses-<label>] as in BIDS"
        raise InputError(
            f"{list_some(unnamed)} {rule}; name them with --names TABLE (case,subject,session) or --pattern REGEX, "
            "such as 'MS_(?P<subject>[0-9]+)'."
        )
    parts = {case: match.groupdict() for case, match in matches.items() if match is not None}
    return {
        case: [value for name in ("subject", "session") if (value := groups.get(name))]
        for case, groups in parts.items()
    }
