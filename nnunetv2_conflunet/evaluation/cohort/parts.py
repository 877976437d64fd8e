"""An evaluation in several parts, on several machines, and their merge."""

from dataclasses import asdict
from pathlib import Path

from nnunetv2_conflunet.evaluation.cohort.settings import ADDED, EvaluationSettings
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json, write_json

PARTS_FOLDER = "evaluation_parts"
# What a part must say of a case, so that it can be joined with others.
PART_OF_CASE = {"case", "metrics", "sweep", "removed", "lesions"}


def part_file(folder: Path, part_id: int, num_parts: int) -> Path:
    """Where a part's results lie."""
    return folder / PARTS_FOLDER / f"part_{part_id}_of_{num_parts}.json"


def check_part(part_id: int, num_parts: int) -> None:
    """Raise an InputError for a part that does not exist."""
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise InputError(f"There is no part {part_id} of {num_parts}; -part_id counts from 0 to -num_parts less 1.")


def write_part(folder: Path, part_id: int, num_parts: int, settings: EvaluationSettings, cases: list[dict]) -> Path:
    """Write the results of one part, whole or not at all."""
    path = part_file(folder, part_id, num_parts)
    write_json({"settings": _plain(settings), "cases": cases}, path)
    return path


def merge_parts(folder: Path, num_parts: int, settings: EvaluationSettings, expected: list[str]) -> list[dict]:
    """The cases of all parts, sorted.

    Args:
        folder: where the parts were written.
        num_parts: their number.
        settings: those that the parts must have been made with.
        expected: the ids of all cases.

    Raises:
        InputError: a part is missing, was made with other settings, or the parts do not hold the expected cases.
    """
    files = {i: part_file(folder, i, num_parts) for i in range(num_parts)}
    missing = [str(i) for i, file in files.items() if not file.is_file()]
    if missing:
        raise InputError(
            f"{folder / PARTS_FOLDER} lacks the parts {list_some(missing)} of {num_parts}; run them first."
        )
    cases = []
    for file in files.values():
        content = read_json(file)
        if not _is_part(content):
            raise InputError(f"{file} is no part of an evaluation by this command; repeat it.")
        differing = sorted(k for k, value in _plain(settings).items() if (ADDED | content["settings"]).get(k) != value)
        if differing:
            raise InputError(f"{file} was made with another {list_some(differing)}; repeat it or give its options.")
        cases += content["cases"]
    cases.sort(key=lambda i: i["case"])
    if [i["case"] for i in cases] != expected:
        changed = sorted(set(expected) ^ {i["case"] for i in cases})
        raise InputError(f"The parts do not hold the cases of the folders: {list_some(changed)}. Repeat the parts.")
    return cases


def _is_part(content: object) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        return False
    cases = content.get("cases")
    return isinstance(cases, list) and all(isinstance(i, dict) and set(i) >= PART_OF_CASE for i in cases)


def _plain(settings: EvaluationSettings) -> dict:
    return {**asdict(settings), "volume_bins_mm3": list(settings.volume_bins_mm3)}
