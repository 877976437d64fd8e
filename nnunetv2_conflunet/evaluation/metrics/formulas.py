"""Lesion-level metrics of one case from the overlap table, the matches and the confluent lesions."""

import math
from collections.abc import Mapping

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES, MEAN_ACCURACY
from nnunetv2_conflunet.evaluation.metrics.matching import Matches, best_pairs
from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable
from nnunetv2_conflunet.evaluation.metrics.published import FURTHER_RATIOS

# An instance is held by the instance of the other map that covers more than this share of it: at most one does.
MERGE_SHARE = 0.5
# The mean lesion load to which the normalized Dice scales (Raina et al., ISBI 2023).
NORMALIZED_LOAD = 0.001

SEMANTIC = ("DSC", "nDSC")
CONFLUENT = ("Recall_CLU", "Precision_CLU", "F1_CLU", "DSC_TP_CLU", "SQ_CLU", "PQ_CLU")
F_BETA = ("F_beta", "F_beta_CLU")
RATIOS = (
    *("Precision", "Recall", "F1", *SEMANTIC, "DSC_TP", "PQ", "SQ", "RQ", *CONFLUENT, "NSD", *F_BETA),
    *(*ACCURACIES, MEAN_ACCURACY, *FURTHER_RATIOS),
)
DISTANCES = ("ASD_mm", "HD95_mm")
MERGES = ("n_merging_predictions", "n_merged_references", "n_splitting_predictions", "n_split_references")
COUNTS = ("TP", "FP", "FN", "n_prediction", "n_reference", "n_CLU", "TP_CLU", "FP_CLU", "FN_CLU", *MERGES)
# Errors. All other metrics that can rank methods are ratios, for which higher is better.
LOWER_IS_BETTER = (
    *("DiC", "FP", "FN", "FP_CLU", "FN_CLU", "load_error_mm3", "FP_volume_mm3", "FN_volume_mm3"),
    *("FP_lesion_volume_mm3", "FN_lesion_volume_mm3", *DISTANCES, *MERGES),
)
UNDEFINED_POLICIES = ("nan", "worst", "authors")


def ratio(numerator: float, denominator: float) -> float:
    """The quotient; NaN if the denominator is 0."""
    return numerator / denominator if denominator else math.nan


def detection_metrics(table: OverlapTable, matches: Matches) -> dict[str, float]:
    """Counts and lesion-wise ratios: TP, FP, FN, Precision, Recall, F1, DiC, DSC_TP, SQ, RQ, PQ and more.

    PQ = SQ * RQ (Kirillov et al., CVPR 2019, eq. 2), 0 if there are lesions but none is matched.
    """
    n_prediction, n_reference = len(table.prediction_ids), len(table.reference_ids)
    tp = len(matches.prediction)
    fp = n_prediction - tp
    # Under a many-to-one rule a reference may be matched by several predictions.
    fn = n_reference - len(np.unique(matches.reference))
    return {
        "TP": tp,
        "FP": fp,
        "FN": fn,
        "n_prediction": n_prediction,
        "n_reference": n_reference,
        "DiC": abs(n_prediction - n_reference),
        "count_difference": n_prediction - n_reference,
        **detection_ratios(tp, fp, fn, math.fsum(matches.iou), math.fsum(matches.dice)),
    }


def detection_ratios(tp: float, fp: float, fn: float, iou_sum: float, dice_sum: float) -> dict[str, float]:
    """Precision, Recall, F1, DSC_TP, SQ, RQ and PQ from matched pairs and unmatched lesions.

    Args:
        tp: number of matched pairs.
        fp: number of predictions without a match.
        fn: number of references without a match.
        iou_sum: sum of the IoU of the pairs.
        dice_sum: sum of their Dice coefficients.

    >>> detection_ratios(tp=2, fp=0, fn=1, iou_sum=1.5, dice_sum=1.7)["PQ"]
    0.6000000000000001
    """
    f1, sq = ratio(2 * tp, 2 * tp + fp + fn), ratio(iou_sum, tp)
    # Without pairs F1 is 0 if there are lesions and NaN if there are none; PQ and Precision are the same.
    return {
        "Precision": ratio(tp, tp + fp) if tp + fp else f1,
        "Recall": ratio(tp, tp + fn),
        "F1": f1,
        "DSC_TP": ratio(dice_sum, tp),
        "SQ": sq,
        "RQ": f1,
        "PQ": sq * f1 if tp else f1,
    }


def f_beta_metrics(counts: Mapping[str, float], beta: float) -> dict[str, float]:
    """F_beta and F_beta_CLU, in which Recall weighs beta times as much as Precision (van Rijsbergen, 1979).

    Args:
        counts: TP, FP and FN, and the same of the confluent lesions.
        beta: positive; 1 gives F1.

    >>> counts = {"TP": 2, "FP": 6, "FN": 0, "TP_CLU": 0, "FP_CLU": 1, "FN_CLU": 0}
    >>> f_beta_metrics(counts, beta=2.0)
    {'F_beta': 0.625, 'F_beta_CLU': nan}
    """
    found = {}
    for name, suffix in zip(F_BETA, ("", "_CLU"), strict=True):
        tp, fp, fn = (counts[f"{count}{suffix}"] for count in ("TP", "FP", "FN"))
        # Without a CLU there is nothing to find or to miss among them.
        defined = not suffix or tp + fn
        found[name] = ratio((1 + beta**2) * tp, (1 + beta**2) * tp + fp + beta**2 * fn) if defined else math.nan
    return found


def semantic_metrics(table: OverlapTable, n_voxels: int, voxel_mm3: float) -> dict[str, float]:
    """Dice of the two foregrounds, normalized Dice, error volumes and lesion loads.

    Args:
        table: overlaps of the two maps.
        n_voxels: number of voxels of the whole map, for the normalized Dice.
        voxel_mm3: volume of a voxel (in 2D, the area of a pixel in mm2).
    """
    prediction, reference = int(table.prediction_voxels.sum()), int(table.reference_voxels.sum())
    tp = int(table.pair_voxels.sum())
    fp, fn = prediction - tp, reference - tp
    # Raina et al., ISBI 2023: false positives are scaled to a lesion load of 0.1 %.
    scale = 1.0
    if 0 < reference < n_voxels:
        scale = (1 - NORMALIZED_LOAD) * reference / (NORMALIZED_LOAD * (n_voxels - reference))
    return {
        "DSC": ratio(2 * tp, prediction + reference),
        "nDSC": ratio(2 * tp, 2 * tp + scale * fp + fn),
        "FP_volume_mm3": fp * voxel_mm3,
        "FN_volume_mm3": fn * voxel_mm3,
        "load_prediction_mm3": prediction * voxel_mm3,
        "load_reference_mm3": reference * voxel_mm3,
        "load_difference_mm3": (prediction - reference) * voxel_mm3,
        "load_error_mm3": abs(prediction - reference) * voxel_mm3,
    }


def unmatched_volumes(table: OverlapTable, matches: Matches, voxel_mm3: float) -> dict[str, float]:
    """Volumes of the unmatched predicted and reference lesions in mm3."""
    predicted, referred = table.prediction_voxels.astype(float), table.reference_voxels.astype(float)
    predicted[matches.prediction] = referred[matches.reference] = 0
    return {
        "FP_lesion_volume_mm3": float(predicted.sum()) * voxel_mm3,
        "FN_lesion_volume_mm3": float(referred.sum()) * voxel_mm3,
    }


def confluence_metrics(table: OverlapTable, matches: Matches, confluent: np.ndarray) -> dict[str, float]:
    """Metrics of the confluent lesion units, from the same global matching.

    A prediction belongs to the CLUs if it matches one or, without a match, if the reference with the highest IoU is
    one. So TP_CLU + FP_CLU counts the predictions that belong to CLUs, and a perfect prediction has Precision_CLU =
    PQ_CLU = 1.

    Args:
        table: overlaps of the two maps.
        matches: of all instances.
        confluent: (R,) bool, which references are CLUs.
    """
    of_clu = confluent[matches.reference]
    tp, n_clu = int(of_clu.sum()), int(confluent.sum())
    fn = n_clu - len(np.unique(matches.reference[of_clu]))
    fp = int(belongs_to_confluent(table, matches, confluent).sum()) - tp
    ratios = detection_ratios(tp, fp, fn, math.fsum(matches.iou[of_clu]), math.fsum(matches.dice[of_clu]))
    return {
        "n_CLU": n_clu,
        "TP_CLU": tp,
        "FP_CLU": fp,
        "FN_CLU": fn,
        **{name: ratios[name.removesuffix("_CLU")] for name in CONFLUENT},
    }


def belongs_to_confluent(table: OverlapTable, matches: Matches, confluent: np.ndarray) -> np.ndarray:
    """(P,) bool: predictions whose match or, without one, whose reference with the highest IoU is a CLU."""
    best = best_pairs(table)
    answered = np.where(best >= 0, table.pair_reference[best], -1) if len(table.pair_voxels) else best
    answered[matches.prediction] = matches.reference
    belongs = np.zeros(len(answered), bool)
    belongs[answered >= 0] = confluent[answered[answered >= 0]]
    return belongs


def held_references(table: OverlapTable) -> tuple[np.ndarray, np.ndarray]:
    """Which predictions hold which references, that is, cover more than half of their voxels.

    Returns:
        (P,) int64, number of references held by each prediction; it merges two or more.
        (R,) int64, index of the prediction that holds each reference, -1 if none does.
    """
    held = table.pair_voxels > MERGE_SHARE * table.reference_voxels[table.pair_reference]
    holder = np.full(len(table.reference_ids), -1, np.int64)
    holder[table.pair_reference[held]] = table.pair_prediction[held]
    return np.bincount(table.pair_prediction[held], minlength=len(table.prediction_ids)), holder


def merge_metrics(table: OverlapTable) -> dict[str, int]:
    """Counts of merging predictions, merged references, split references and splitting predictions."""
    merged, _ = held_references(table)
    split, _ = held_references(table.swapped())
    return {
        "n_merging_predictions": int((merged > 1).sum()),
        "n_merged_references": int(merged[merged > 1].sum()),
        "n_split_references": int((split > 1).sum()),
        "n_splitting_predictions": int(split[split > 1].sum()),
    }


def apply_undefined_policy(metrics: dict[str, float], policy: str) -> dict[str, float]:
    """Replace undefined ratios according to a policy.

    Args:
        metrics: of one case, with NaN where a ratio is undefined.
        policy: ``"nan"`` leaves them; ``"worst"`` makes them 0; ``"authors"`` follows the published code of
            ConfLUNet: 1 for DSC and nDSC of two empty maps, 0 for other undefined ratios, but NaN for the CLU metrics
            without a CLU.

    >>> apply_undefined_policy({"SQ": math.nan, "DSC": math.nan, "ASD_mm": math.nan}, "authors")
    {'SQ': 0.0, 'DSC': 1.0, 'ASD_mm': nan}
    """
    if policy == "nan":
        return metrics
    filling = dict.fromkeys(RATIOS, 0.0)
    if policy == "authors":
        filling |= dict.fromkeys(SEMANTIC, 1.0)
        if not metrics.get("n_CLU"):
            filling |= dict.fromkeys((*CONFLUENT, "F_beta_CLU"), math.nan)
    return {name: filling.get(name, value) if math.isnan(value) else value for name, value in metrics.items()}
