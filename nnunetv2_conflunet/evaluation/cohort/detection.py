"""Detection over confidence: the steps of a case as they are stored, and the metrics of a cohort from them."""

from collections.abc import Sequence
from typing import Any

from nnunetv2_conflunet.evaluation.cohort.confidences import REMEDY, confidences_of
from nnunetv2_conflunet.evaluation.cohort.pairing import Pair
from nnunetv2_conflunet.evaluation.detection.metrics import N_RESAMPLES, Cohort, thresholds_of, with_intervals
from nnunetv2_conflunet.evaluation.detection.steps import CaseSteps, steps_of_case
from nnunetv2_conflunet.evaluation.metrics.case import CaseEvaluation
from nnunetv2_conflunet.utilities.errors import InputError, join_faults

LEFT_OUT = "left_out"
OF_EARLIER_VERSION = "it was evaluated by an earlier version"


def detection_of_case(pair: Pair, evaluation: CaseEvaluation) -> dict[str, Any]:
    """The detections of a case at every threshold on confidence, as plain values.

    Returns:
        ``steps``: for each IoU threshold of :func:`.thresholds_of` its ``iou_threshold`` and what
        :meth:`.CaseSteps.to_json` gives. Or ``left_out``: why the case has no confidences.
    """
    settings = evaluation.settings
    try:
        confidence = confidences_of(pair, evaluation.known.table.prediction_ids)
    except InputError as error:
        return {LEFT_OUT: str(error)}
    steps = []
    for threshold in thresholds_of(settings.iou_threshold):
        kept, table, _ = evaluation.matched(threshold)
        of_case = steps_of_case(table, evaluation.confluent, confidence[kept], settings.matching, threshold)
        steps.append({"iou_threshold": threshold, **of_case.to_json()})
    return {"steps": steps}


def cases_left_out(detections: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Case -> why it has no confidences, of those that have none.

    >>> cases_left_out({"MS_1": {}, "MS_2": {"steps": []}})
    {'MS_1': 'it was evaluated by an earlier version'}
    """
    return {
        case: stored.get(LEFT_OUT, OF_EARLIER_VERSION) for case, stored in detections.items() if "steps" not in stored
    }


def cohort_of(detections: Sequence[dict[str, Any]]) -> Cohort:
    """The cohort from what is stored of each of its cases."""
    by_threshold: dict[float, list[CaseSteps]] = {}
    for stored in detections:
        for entry in stored["steps"]:
            by_threshold.setdefault(entry["iou_threshold"], []).append(CaseSteps.from_json(entry))
    return Cohort(by_threshold)


def summarize_detection(detections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """FROC and average precision of a cohort.

    Args:
        detections: case -> what :func:`detection_of_case` gives.

    Returns:
        ``metrics``: name -> value, low, high (see :func:`.with_intervals`); ``iou_threshold`` of the FROC;
        ``n_patients``; ``n_resamples``. Or ``left_out``: the cases without confidences, and what to do.

    >>> summarize_detection({"MS_1": {"left_out": "there is no lesion table"}})["left_out"][:66]
    'FROC and AP are left out. MS_1: there is no lesion table. Predicti'
    """
    if left_out := cases_left_out(detections):
        return {LEFT_OUT: f"FROC and AP are left out. {join_faults(left_out)}. {REMEDY}."}
    cohort = cohort_of(list(detections.values()))
    return {
        "iou_threshold": next(iter(cohort.steps)),
        "n_patients": cohort.n_patients,
        "n_resamples": N_RESAMPLES,
        "metrics": with_intervals(cohort),
    }
