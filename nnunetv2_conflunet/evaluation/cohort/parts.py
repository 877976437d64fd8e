"""Evaluation in several parts, on one or more machines, and their merge."""

from pathlib import Path

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair
from nnunetv2_conflunet.evaluation.cohort.settings import ADDED, EvaluationSettings
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json, write_json

PARTS_FOLDER = "evaluation_parts"
# Entries that each case of a part must have for the merge.
PART_OF_CASE = {"case", "metrics", "sweep", "removed", "lesions"}


def part_file(folder: Path, part_id: int, num_parts: int) -> Path:
    """The file of a part's results.

    >>> part_file(Path("out"), 0, 2).as_posix()
    'out/evaluation_parts/part_0_of_2.json'
    """
    return folder / PARTS_FOLDER / f"part_{part_id}_of_{num_parts}.json"


def check_part(part_id: int, num_parts: int) -> None:
    """Raise an InputError for a part that does not exist."""
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise InputError(f"There is no part {part_id} of {num_parts}; -part_id counts from 0 to -num_parts minus 1.")


def write_part(
    folder: Path, part_id: int, num_parts: int, settings: EvaluationSettings, cases: list[CaseResult]
) -> Path:
    """Write the results of one part, completely or not at all."""
    path = part_file(folder, part_id, num_parts)
    write_json({"settings": settings.to_json(), "cases": [case.to_json() for case in cases]}, path)
    return path


def merge_parts(folder: Path, num_parts: int, settings: EvaluationSettings, expected: list[Pair]) -> list[CaseResult]:
    """The cases of all parts, sorted.

    Args:
        folder: where the parts were written.
        num_parts: their number.
        settings: the settings that the parts must have been made with.
        expected: all cases, with the files that the parts must have been made from.

    Raises:
        InputError: a part is missing, was made with other settings or from other files, or the parts do not hold the
            expected cases.
    """
    files = [part_file(folder, part_id, num_parts) for part_id in range(num_parts)]
    missing = [str(part_id) for part_id, file in enumerate(files) if not file.is_file()]
    if missing:
        raise InputError(
            f"{folder / PARTS_FOLDER} lacks the parts {list_some(missing)} of {num_parts}; run them first."
        )
    cases = []
    for file in files:
        content = read_json(file)
        if not _is_part(content):
            raise InputError(f"{file} is not a part of an evaluation by this command; repeat it.")
        stored = ADDED | content["settings"]
        differing = sorted(name for name, value in settings.to_json().items() if stored.get(name) != value)
        if differing:
            raise InputError(f"{file} was made with a different {list_some(differing)}; repeat it, or use its options.")
        cases += [CaseResult.from_json(entry) for entry in content["cases"]]
    cases.sort(key=lambda case: case.case)
    found, wanted = [case.case for case in cases], [pair.case for pair in expected]
    if found != wanted:
        changed = sorted(set(wanted) ^ set(found))
        raise InputError(f"The parts and the folders contain different cases: {list_some(changed)}. Repeat the parts.")
    for case, pair in zip(cases, expected, strict=True):
        sides = ((case.reference_file, pair.reference), (case.prediction_file, pair.prediction))
        for made_from, now in sides:
            if made_from and Path(made_from).resolve() != (now and now.resolve()):
                raise InputError(
                    f"The part with case {case.case} was made from {made_from}, not from {now or 'no prediction'}. "
                    "Repeat the parts of this evaluation, or merge with the folders that they were made from."
                )
    return cases


def _is_part(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        return False
    cases = content.get("cases")
    return isinstance(cases, list) and all(isinstance(entry, dict) and set(entry) >= PART_OF_CASE for entry in cases)
