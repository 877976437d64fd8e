"""Means, standard deviations, pooled values and strata over the cases of a folder."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult, case_table
from nnunetv2_conflunet.evaluation.cohort.detection import summarize_detection
from nnunetv2_conflunet.evaluation.cohort.pairing import Pairing
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES, MEAN_ACCURACY, pooled_accuracy
from nnunetv2_conflunet.evaluation.metrics.case import SWEPT
from nnunetv2_conflunet.evaluation.metrics.formulas import COUNTS, detection_ratios, f_beta_metrics, ratio
from nnunetv2_conflunet.evaluation.metrics.published import FURTHER_COUNTS, NOT_PUBLISHED
from nnunetv2_conflunet.evaluation.metrics.unknown import OF_UNKNOWN
from nnunetv2_conflunet.postprocessing.size_filter import REMEDY

# 250 voxels of float32(0.12) x 1 x 1 mm are 30 mm3: borders hold up to the rounding of three spacings in a header.
BORDER_ROUNDING = 3e-7


def summarize(
    cases: list[CaseResult], lesions: pd.DataFrame, settings: EvaluationSettings, pairing: Pairing
) -> dict[str, Any]:
    """Summarize the evaluated cases in the shape of nnU-Net's ``summary.json``.

    Args:
        cases: from :func:`.cases.evaluate_pairs`.
        lesions: the rows of all their lesions.
        settings: of the evaluation.
        pairing: the cases without a prediction or a reference, and the reader.

    Returns:
        ``metric_per_case``, ``mean``, ``std`` (ddof 1) and ``n`` (number of cases with a defined value, over which
        mean and std are taken) by metric, ``pooled`` (metrics of the summed counts), ``sweep`` (means over cases at
        other IoU thresholds), ``detection`` (see :func:`.summarize_detection`), ``strata``, ``removed`` (totals of the
        size filter), ``dim`` (2 if all images are 2D), ``missing``, ``extra``, ``notes``, ``settings``, ``reader`` and
        ``version``.
    """
    dim = 2 if all(case.dim == 2 for case in cases) else 3
    table = case_table(cases).drop(columns="case").astype(float)
    removed = _sum_of_removed(cases)
    by_threshold = pd.DataFrame([row for case in cases for row in case.sweep]).groupby("iou_threshold")[list(SWEPT)]
    means, defined = by_threshold.mean().to_dict("index"), by_threshold.count().to_dict("index")
    return {
        "metric_per_case": [case.to_json(with_lesions=False) for case in cases],
        "mean": table.mean().to_dict(),
        "std": table.std(ddof=1).to_dict(),
        "n": table.count().to_dict(),
        "pooled": pooled_metrics(table, lesions, settings.beta, published=settings.is_published),
        "sweep": [
            {"iou_threshold": threshold, "mean": means[threshold], "n": defined[threshold]} for threshold in means
        ],
        "detection": summarize_detection({case.case: case.detection for case in cases}),
        "strata": {
            "volume": strata_by_volume(lesions, settings.volume_bins_mm3, f"mm{dim}"),
            "confluence": strata_by_confluence(lesions),
        },
        "removed": removed,
        "dim": dim,
        "n_cases": len(cases),
        "missing": pairing.missing,
        "extra": pairing.extra,
        "notes": [*_notes(lesions, settings, pairing, removed), *_unknown(table, dim), *pairing.notes],
        "settings": settings.to_json(),
        "reader": pairing.reader.__name__,
        "version": __version__,
    }


def pooled_metrics(
    table: pd.DataFrame, lesions: pd.DataFrame, beta: float | None = None, *, published: bool = False
) -> dict[str, float]:
    """Metrics over the pooled lesions of all cases: from summed counts, volumes and matched pairs.

    Args:
        table: one row per case, one column per metric.
        lesions: the rows of all lesions.
        beta: of F_beta; None leaves it out.
        published: whether the CLU metrics are the published ones, of which only the counts are pooled.
    """
    sums = table.sum()
    of_unknown = [name for name in OF_UNKNOWN if name in table and not name.endswith("_mm3")]
    counted = (*COUNTS, *(FURTHER_COUNTS if published else ()), *of_unknown)
    pooled: dict[str, float] = {name: int(sums[name]) for name in counted}
    pooled |= {name: float(sums[name]) for name in table.columns if name.endswith("_mm3")}
    both_mm3 = sums["load_prediction_mm3"] + sums["load_reference_mm3"]
    pooled["DSC"] = ratio(both_mm3 - sums["FP_volume_mm3"] - sums["FN_volume_mm3"], both_mm3)
    # Under every rule a prediction has at most one match, so its row represents the pair.
    pairs = lesions[(lesions["side"] == "prediction") & (lesions["status"] == "TP")]
    all_pairs, clu_pairs = ("", pairs), ("_CLU", pairs[pairs["answers_CLU"].astype(bool)])
    for suffix, chosen in [all_pairs] if published else [all_pairs, clu_pairs]:
        counts = [sums[f"{name}{suffix}"] for name in ("TP", "FP", "FN")]
        ratios = detection_ratios(*counts, *(chosen[name].astype(float).sum() for name in ("match_iou", "match_dice")))
        pooled |= {f"{name}{suffix}": ratios[name] for name in ("Precision", "Recall", "F1", "DSC_TP", "SQ", "PQ")}
    if beta is not None:
        left_out = NOT_PUBLISHED if published else ()
        pooled |= {name: value for name, value in f_beta_metrics(pooled, beta).items() if name not in left_out}
    return {**pooled, "RQ": pooled["F1"], **pooled_accuracies(table)}


def pooled_accuracies(table: pd.DataFrame) -> dict[str, float]:
    """``accuracy_50`` to ``accuracy_95`` and their mean over the lesions of all cases; none in earlier evaluations.

    >>> cases = [CaseResult("MS_1", metrics={"n_prediction": 1, "n_reference": 1, **dict.fromkeys(ACCURACIES, 1.0)})]
    >>> pooled_accuracies(case_table(cases))["accuracy_50_95"]
    1.0
    """
    if not {"n_prediction", "n_reference", *ACCURACIES} <= set(table.columns):
        return {}
    n_lesions = (table["n_prediction"] + table["n_reference"]).to_numpy()
    pooled = {name: pooled_accuracy(table[name].to_numpy(), n_lesions) for name in ACCURACIES}
    return {**pooled, MEAN_ACCURACY: sum(pooled.values()) / len(pooled)}


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
    # All digits, so that no two ranges have one name.
    borders = [f"{border:.15g}" for border in borders_mm3]
    between = [f"{a} to {b} {unit}" for a, b in pairwise(borders)]
    names = ["all areas" if unit == "mm2" else "all volumes"]
    if borders_mm3:
        names = [f"< {borders[0]} {unit}", *between, f">= {borders[-1]} {unit}"]
    lowest = np.array(borders_mm3, float) * (1 - BORDER_ROUNDING)
    stratum = np.searchsorted(lowest, lesions["volume_mm3"].astype(float), side="right")
    return [_of_stratum(name, lesions[stratum == i]) for i, name in enumerate(names)]


def strata_by_confluence(lesions: pd.DataFrame) -> list[dict]:
    """The same metrics for confluent and isolated lesions.

    A reference is confluent if it is a confluent lesion unit. A prediction is confluent if its matched reference is one
    or, without a match, the reference with the highest IoU; without any overlap it counts as isolated.
    """
    confluent = lesions["answers_CLU"].astype(bool)
    return [_of_stratum("confluent", lesions[confluent]), _of_stratum("isolated", lesions[~confluent])]


def _of_stratum(name: str, lesions: pd.DataFrame) -> dict:
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


def _sum_of_removed(cases: list[CaseResult]) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, float]] = {}
    for case in cases:
        for side, report in case.removed.items():
            of_side = sums.setdefault(side, {})
            for name, value in report.items():
                of_side[name] = of_side.get(name, 0) + value
    return sums


def _unknown(table: pd.DataFrame, dim: int) -> list[str]:
    """What was left out for unknown instances, in a sentence; none if there are none."""
    if not set(OF_UNKNOWN) <= set(table) or not (table["n_unknown_voxels"] > 0).any():
        return []
    n_voxels, size, n_left_out = table[list(OF_UNKNOWN)].sum()
    n_cases = (table["n_unknown_voxels"] > 0).sum()
    return [
        f"{n_voxels:.0f} voxels ({size:,.0f} mm{dim}) in {n_cases} of {len(table)} references are of unknown instances "
        f"and count for the mask only; {n_left_out:.0f} predicted lesions that lie on them are left out of every count."
    ]


def _notes(
    lesions: pd.DataFrame, settings: EvaluationSettings, pairing: Pairing, removed: dict[str, dict[str, float]]
) -> list[str]:
    """Notes that readers of the results need."""
    notes, missing, extra = [], pairing.missing, pairing.extra
    if missing:
        treated = "scored as empty predictions" if settings.missing == "worst" else "left out of every number"
        notes.append(f"{len(missing)} cases have no prediction and are {treated}: {', '.join(missing)}.")
    if extra:
        notes.append(f"{len(extra)} predictions have no reference and are not evaluated: {', '.join(extra)}.")
    sides = {side: lesions.loc[lesions["side"] == side, "id"] for side in ("prediction", "reference")}
    n_removed = removed.get("reference", {}).get("n_instances_removed", 0)
    if n_removed and not len(sides["reference"]):
        notes.append(
            f"The size filter removed every lesion of the references ({n_removed}). Lower its limits, or keep all with "
            f"--no_size_filter. {REMEDY}."
        )
    for side, other in (("prediction", "reference"), ("reference", "prediction")):
        if len(sides[side]) and sides[side].eq(1).all() and sides[other].nunique() > 1:
            notes.append(
                f"Every {side} has 1 as its only id, so each map counts as one lesion; convert semantic masks to "
                "instances first."
            )
    return notes
