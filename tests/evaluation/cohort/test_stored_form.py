"""A summary that someone has edited is named in one sentence, whatever was edited."""

import json
import math
from pathlib import Path

import pytest

from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.cohort.stored_form import refuse_edited
from nnunetv2_conflunet.evaluation.detection.metrics import NAMES
from nnunetv2_conflunet.evaluation.detection.steps import COUNTED
from nnunetv2_conflunet.utilities.errors import InputError

STRATUM = {"stratum": "all", "n_reference": 1, "n_prediction": 0, "Recall": 0.0, "Precision": math.nan}
STEPS = {"iou_threshold": 0.1, "n_reference": 1, "n_CLU": 0, "confidence": [0.5], **{name: [1] for name in COUNTED}}


@pytest.fixture
def summary():
    """What the command writes of one case."""
    case = {"case": "a", "reference_file": "a.nii.gz", "metrics": {"PQ": math.nan, "TP": 1}}
    return {
        "metric_per_case": [case | {"detection": {"steps": [STEPS]}}],
        **{name: {"PQ": math.nan, "TP": 1.0} for name in ("mean", "std")},
        "n": {"PQ": 0, "TP": 1},
        "strata": {key: [STRATUM | {"SQ": math.nan, "PQ": 0.0}] for key in ("volume", "confluence")},
        "removed": {"reference": {"n_instances_removed": 0}},
        "detection": {
            **{"iou_threshold": 0.1, "n_patients": 1, "n_resamples": 1000},
            "metrics": {name: {"value": 0.5, "low": math.nan, "high": math.nan} for name in NAMES},
        },
        **{"n_cases": 1, "notes": ["a note"], "reader": "SimpleITKIO", "version": "1"},
        "settings": EvaluationSettings().to_json(),
    }


def edited(summary, place, value):
    """The summary as read from a file, with another value at a place; without it if the value is ``...``."""
    summary = json.loads(json.dumps(summary))
    *outer, last = [int(key) if key.isdecimal() else key for key in place.split("/")]
    at = summary
    for key in outer:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return summary


def check(summary):
    refuse_edited(Path("e/summary_instances.json"), summary, summary["settings"], ["PQ", "TP"])


@pytest.mark.parametrize("value", [..., None, [3], {"x": "y"}])
@pytest.mark.parametrize(
    "place",
    [
        *("version", "reader", "n_cases", "notes", "removed", "strata"),
        *("mean", "std", "n", "mean/PQ", "std/TP", "n/TP"),
        *("removed/reference/n_instances_removed", "strata/volume", "strata/confluence/0/Recall"),
        *("metric_per_case/0/reference_file", "metric_per_case/0/metrics/PQ", "settings/clu", "settings/min_extent_mm"),
        *("detection/metrics/FROC", "detection/metrics/AP@0.1/low", "detection/n_patients"),
    ],
)
def test_what_a_report_needs_is_named(summary, place, value):
    check(summary)
    with pytest.raises(InputError, match=r"e/summary_instances\.json has no usable entry '[\w.@/]+'; was it edited\?"):
        check(edited(summary, place, value))


@pytest.mark.parametrize("value", [None, 3, [3]])
def test_a_detection_of_another_kind_is_named(summary, value):
    with pytest.raises(InputError, match="no usable entry 'detection'"):
        check(summary | {"detection": value})


@pytest.mark.parametrize("place", ["dim", "missing", "detection/metrics", "detection"])
def test_what_an_earlier_version_lacked_is_not_needed(summary, place):
    check(edited(summary | {"dim": 3, "missing": []}, place, ...))


@pytest.mark.parametrize(
    "place, value",
    [
        ("metric_per_case/0/metrics/PQ", "0,5"),
        ("metric_per_case/0/metrics/PQ", None),
        ("metric_per_case/0/detection", 3),
        ("metric_per_case/0/detection/steps", []),
        ("metric_per_case/0/detection/steps/0/true", ...),
        ("metric_per_case/0/detection/steps/0/true", ["x"]),
    ],
)
def test_what_a_comparison_needs_is_checked_when_read(summary, tmp_path, place, value):
    file = tmp_path / "summary_instances.json"
    file.write_text(json.dumps(summary))
    assert list(load_methods([file])[0].cases) == ["a"]
    file.write_text(json.dumps(edited(summary, place, value)))
    with pytest.raises(InputError, match=r"summary_instances\.json is not a summary by nnUNetv2_conflunet_evaluate"):
        load_methods([file])


def test_a_case_that_is_there_twice_is_no_single_case(summary, tmp_path):
    file = tmp_path / "summary_instances.json"
    file.write_text(json.dumps(summary | {"metric_per_case": 2 * summary["metric_per_case"]}))
    with pytest.raises(InputError, match="is not a summary"):
        load_methods([file])
