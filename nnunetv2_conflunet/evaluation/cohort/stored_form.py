"""Whether a stored evaluation has the form in which it is written; someone may have edited it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.evaluation.detection.metrics import NAMES
from nnunetv2_conflunet.evaluation.detection.steps import COUNTED
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import is_file_name

NUMBER = (int, float)
# The key of a form for all values of a dictionary.
EACH = object()
STEPS = {
    "iou_threshold": NUMBER,
    "n_reference": int,
    "n_CLU": int,
    **{key: [NUMBER] for key in ("confidence", *COUNTED)},
}
# What a comparison reads, and what a report reads as well.
COMPARED = {"settings": {}, "metric_per_case": [{"case": str, "metrics": {EACH: NUMBER}}]}
# Of a stratum, in the order in which they are shown.
STRATA_COUNTS, STRATA_RATIOS = ("n_reference", "n_prediction"), ("Recall", "Precision", "SQ", "PQ")
STRATUM = {"stratum": str, **dict.fromkeys(STRATA_COUNTS, int), **dict.fromkeys(STRATA_RATIOS, NUMBER)}
REPORTED = {
    "version": str,
    "reader": str,
    "n_cases": int,
    "notes": [str],
    **{key: {EACH: NUMBER} for key in ("mean", "std")},
    "n": {EACH: int},
    "removed": {EACH: {"n_instances_removed": NUMBER}},
    "strata": {"volume": [STRATUM], "confluence": [STRATUM]},
}
SETTINGS = {
    **dict.fromkeys(("iou_threshold", *LIMITS), NUMBER),
    **dict.fromkeys(("matching", "clu", "undefined"), str),
    "connectivity": int,
    "beta": (*NUMBER, type(None)),
}
DETECTION = {
    "iou_threshold": NUMBER,
    **dict.fromkeys(("n_patients", "n_resamples"), int),
    "metrics": dict.fromkeys(NAMES, dict.fromkeys(("value", "low", "high"), NUMBER)),
}


def misfit(content: Any, form: Any, place: str = "") -> str | None:
    """The first place where content does not have a form; None if there is none.

    Args:
        content: read from JSON.
        form: a type or several; a list with the form of all items; or a dictionary with the form of each key that must
            be there, or of all values under :data:`EACH`.
        place: of the content in the file.

    >>> misfit({"a": [1, "x"]}, {"a": [int]}), misfit({}, {"a": int}), misfit({"a": 1}, {EACH: int})
    ('a.1', 'a', None)
    """
    parts: list[tuple[Any, Any, Any]]
    if isinstance(form, list):
        if not isinstance(content, list):
            return place or "."
        parts = [(i, item, form[0]) for i, item in enumerate(content)]
    elif isinstance(form, dict):
        if not isinstance(content, dict):
            return place or "."
        keys = dict.fromkeys(content, EACH) if EACH in form else {key: key for key in form}
        # Where a key is missing, an object of its own is of no form that JSON has.
        parts = [(key, content.get(key, EACH), form[known]) for key, known in keys.items()]
    else:
        return None if isinstance(content, form) else place
    found = (misfit(value, one, f"{place}.{key}".removeprefix(".")) for key, value, one in parts)
    return next((at for at in found if at is not None), None)


def is_comparable(content: Any) -> bool:
    """Whether this is a summary whose cases can be compared, with names that are different plain file names."""
    if misfit(content, COMPARED) is not None:
        return False
    entries = content["metric_per_case"]
    names = [entry["case"] for entry in entries]
    stored = [entry.get("detection", {}) for entry in entries]
    return (
        bool(names)
        and all(map(is_file_name, names))
        and len(set(names)) == len(names)
        and all(isinstance(one, dict) and misfit(one.get("steps", []), [STEPS]) is None for one in stored)
        and all(one.get("steps") != [] for one in stored)
    )


def refuse_edited(file: Path, summary: dict[str, Any], settings: dict[str, Any], metrics: Collection[str]) -> None:
    """Raise an InputError that names what a report needs and a summary lacks.

    Args:
        file: the summary.
        summary: its content, which :func:`is_comparable`.
        settings: its settings, with those that an earlier version did not store.
        metrics: names of those that every case must have.
    """
    of_case = {"reference_file": str, "metrics": dict.fromkeys(metrics, NUMBER)}
    at = misfit(summary, REPORTED | {"metric_per_case": [of_case]}) or misfit(settings, SETTINGS, "settings")
    if at is None:
        over_cases = [summary[name] for name in ("mean", "std", "n")]
        every = {name: NUMBER for of_metric in over_cases for name in of_metric}
        at = misfit(summary, dict.fromkeys(("mean", "std", "n"), every))
    if at is None:
        detection = summary.get("detection", {})
        at = misfit(detection, {}, "detection")
    if at is None and "metrics" in detection:
        at = misfit(detection, DETECTION, "detection")
    if at is not None:
        raise InputError(f"{file} has no usable entry '{at}'; was it edited? Run nnUNetv2_conflunet_evaluate again.")
