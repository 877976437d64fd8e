"""Detection by lesion volume and by confluence, pooled over the lesions of all cases."""

import math
from itertools import pairwise

import pandas as pd

from nnunetv2_conflunet.evaluation.metrics.formulas import detection_ratios, ratio


def strata_by_volume(lesions: pd.DataFrame, borders_mm3: tuple[float, ...], unit: str = "mm3") -> list[dict]:
    """Metrics of the lesions in each volume range.

    Recall is over the references in the range, precision over the predictions in it. For PQ a matched pair belongs to
    the range of its reference, an unmatched lesion to its own range.

    Args:
        lesions: the rows of :func:`.lesions.describe_lesions` of any number of cases.
        borders_mm3: inner borders, ascending; a lesion on a border belongs to the larger range.
        unit: of the borders, in the names of the ranges; ``mm2`` for areas in 2D.

    Returns:
        For each range, from small to large: stratum, n_reference, n_prediction, TP, FN, FP, Recall, Precision, SQ, PQ.
        TP counts matched references; ratios without lesions are NaN.

    >>> lesions = pd.DataFrame({"side": ["reference", "prediction"], "status": ["TP", "TP"], "volume_mm3": [20.0, 35.0],
    ...                         "match_iou": [0.5, 0.5], "match_dice": [0.6, 0.6]})
    >>> [(row["stratum"], row["Recall"]) for row in strata_by_volume(lesions, (30.0,))]
    [('< 30 mm3', 1.0), ('>= 30 mm3', nan)]
    """
    edges = [0.0, *borders_mm3, float("inf")]
    between = [f"{a:g} to {b:g} {unit}" for a, b in pairwise(borders_mm3)]
    names = ["all areas" if unit == "mm2" else "all volumes"]
    if borders_mm3:
        names = [f"< {borders_mm3[0]:g} {unit}", *between, f">= {borders_mm3[-1]:g} {unit}"]
    stratum = pd.cut(lesions["volume_mm3"], edges, right=False, labels=names)
    return [_metrics(name, lesions[stratum == name]) for name in names]


def strata_by_confluence(lesions: pd.DataFrame) -> list[dict]:
    """The same metrics for confluent and isolated lesions.

    A reference is confluent if it is a confluent lesion unit. A prediction is confluent if its matched reference is one
    or, without a match, the reference with the highest IoU; without any overlap it counts as isolated.
    """
    confluent = lesions["answers_CLU"].astype(bool)
    return [_metrics("confluent", lesions[confluent]), _metrics("isolated", lesions[~confluent])]


def _metrics(name: str, lesions: pd.DataFrame) -> dict:
    reference, prediction = lesions[lesions["side"] == "reference"], lesions[lesions["side"] == "prediction"]
    found, false = reference[reference["status"] == "TP"], int((prediction["status"] == "FP").sum())
    missed = len(reference) - len(found)
    iou_sum, dice_sum = (math.fsum(found[name].to_numpy(float)) for name in ("match_iou", "match_dice"))
    ratios = detection_ratios(len(found), false, missed, iou_sum, dice_sum)
    return {
        "stratum": name,
        "n_reference": len(reference),
        "n_prediction": len(prediction),
        "TP": len(found),
        "FN": missed,
        "FP": false,
        "Recall": ratio(len(found), len(reference)),
        "Precision": ratio(len(prediction) - false, len(prediction)),
        "SQ": ratios["SQ"],
        "PQ": ratios["PQ"],
    }
