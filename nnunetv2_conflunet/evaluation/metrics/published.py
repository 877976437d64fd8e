"""Metrics of the confluent lesion units (CLU) as the published code of ConfLUNet computes them."""

import math

from nnunetv2_conflunet.evaluation.metrics.confluence import find_confluent
from nnunetv2_conflunet.evaluation.metrics.matching import Matches, match
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable

# The authors' suffix of the names, and what it stands for: tier, the number of dilations, and connectivity.
VARIANTS = {"": (0, 6), "_conn_26": (0, 26), "_tier_1": (1, 6), "_tier_1_conn_26": (1, 26)}
FURTHER = tuple(suffix for suffix in VARIANTS if suffix)
# The only rule and the connectivities of that code; 26 is given beside 6.
PUBLISHED_MATCHING, PUBLISHED_CONNECTIVITY, NOT_PUBLISHED_CONNECTIVITY = "paper", 6, 18
FURTHER_RATIOS = tuple(
    f"{name}{suffix}"
    for suffix in FURTHER
    for name in ("Recall_CLU", "Precision_CLU", "F1_CLU", "DSC_TP_CLU", "PQ_CLU")
)
FURTHER_COUNTS = tuple(f"{name}{suffix}" for suffix in FURTHER for name in ("n_CLU", "TP_CLU", "FN_CLU"))
# CLU metrics that code does not have.
NOT_PUBLISHED = ("SQ_CLU", "F_beta_CLU")
# Added to denominators.
EPSILON = 1e-6


def published_metrics(table: OverlapTable, foreground: Foreground, iou_threshold: float = 0.1) -> dict[str, float]:
    """CLU metrics as in ``conflunet/evaluation`` of the authors' repository, for the tables of arXiv 2505.22537.

    An instance is a CLU if its connected component of the reference's mask, dilated `tier` times across faces, holds
    another instance. All predictions are matched again to the CLUs alone (rule ``paper``), which gives TP_CLU and
    FN_CLU. FP_CLU counts, in the matching to all references, the predictions whose best reference has an IoU above the
    threshold but goes to another prediction; it is the same for every variant.

    Args:
        table: overlaps of the lesions that count.
        foreground: voxels of the two maps, whose reference may also hold others.
        iou_threshold: pairs match only strictly above it; 0.1 in that code.

    Returns:
        n_CLU, TP_CLU, FN_CLU, FP_CLU, Recall_CLU, Precision_CLU, F1_CLU, DSC_TP_CLU and PQ_CLU for tier 0 and
        connectivity 6, and all but FP_CLU with the suffixes ``_conn_26``, ``_tier_1`` and ``_tier_1_conn_26``. Without
        a CLU, DSC_TP_CLU is NaN and the other ratios follow the authors' conventions (``docs/metrics.md``).

    >>> import numpy as np
    >>> reference = np.array([[1, 1, 2, 2, 0, 3, 3]])
    >>> foreground = Foreground.of(reference, reference)
    >>> found = published_metrics(OverlapTable.of(foreground), foreground)
    >>> found["n_CLU"], found["n_CLU_tier_1"], found["Recall_CLU"]
    (2, 3, 0.99999950000025)
    """
    claimed = match(table, "isbi2024", iou_threshold)
    fp = len(claimed.prediction) - len(match(table, PUBLISHED_MATCHING, iou_threshold).prediction)
    lesions = table.reference_ids, foreground.coordinates, foreground.reference
    metrics: dict[str, float] = {}
    for suffix, (tier, connectivity) in VARIANTS.items():
        units = table.of_references(find_confluent(*lesions, connectivity=connectivity, dilations=tier))
        found = _of_variant(units, match(units, PUBLISHED_MATCHING, iou_threshold), fp)
        metrics |= {f"{name}{suffix}": value for name, value in found.items()}
    return {**metrics, "FP_CLU": fp}


def _of_variant(units: OverlapTable, matches: Matches, fp: int) -> dict[str, float]:
    n_clu, tp = len(units.reference_ids), len(matches.prediction)
    fn = n_clu - tp
    recall = tp / (n_clu + EPSILON) if n_clu else 1.0
    precision = tp / (tp + fp + EPSILON) if n_clu or fp else 1.0
    pq = math.fsum(matches.iou) / (tp + 0.5 * fp + 0.5 * fn) if tp else 0.0
    return {
        "n_CLU": n_clu,
        "TP_CLU": tp,
        "FN_CLU": fn,
        "Recall_CLU": recall,
        "Precision_CLU": precision,
        "F1_CLU": 2 * recall * precision / (recall + precision + EPSILON),
        "DSC_TP_CLU": (math.fsum(matches.dice) / tp if tp else 0.0) if n_clu else math.nan,
        "PQ_CLU": pq if n_clu or len(units.prediction_ids) else 1.0,
    }
