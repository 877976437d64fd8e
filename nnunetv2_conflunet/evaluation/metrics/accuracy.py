"""AP of instances without confidence, as users of StarDist and Cellpose report it: TP / (TP + FP + FN) by IoU."""

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable

# Quotients, so that an IoU of exactly a threshold equals it.
ACCURACY_THRESHOLDS = tuple(twentieths / 20 for twentieths in range(10, 20))
# The name of the metric at each threshold, such as accuracy_50.
ACCURACIES = {f"accuracy_{round(100 * threshold)}": threshold for threshold in ACCURACY_THRESHOLDS}
MEAN_ACCURACY = "accuracy_50_95"


def accuracy_metrics(table: OverlapTable) -> dict[str, float]:
    """TP / (TP + FP + FN) at each IoU from 0.5 to 0.95, and its mean over these thresholds.

    StarDist calls it ``accuracy`` (``stardist.matching``), Cellpose ``average_precision``, the Data Science Bowl 2018
    precision. Predictions have no confidence here. TP is the size of the largest one-to-one set of pairs whose IoU is
    at least the threshold.

    Returns:
        ``accuracy_50`` to ``accuracy_95`` and ``accuracy_50_95``, each in [0, 1]; NaN if both maps are empty.

    >>> from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
    >>> maps = np.array([[1, 1, 1, 2, 2, 0]]), np.array([[7, 7, 7, 7, 8, 8]])
    >>> found = accuracy_metrics(OverlapTable.of(Foreground.of(*maps)))
    >>> found["accuracy_75"], round(found["accuracy_50_95"], 3)
    (0.3333333333333333, 0.2)
    """
    n_lesions = len(table.prediction_ids) + len(table.reference_ids)
    found = {name: _accuracy(_n_matched(table, threshold), n_lesions) for name, threshold in ACCURACIES.items()}
    return {**found, MEAN_ACCURACY: sum(found.values()) / len(found)}


def pooled_accuracy(accuracies: np.ndarray, n_lesions: np.ndarray) -> float:
    """TP / (TP + FP + FN) of several images as one.

    Args:
        accuracies: (N,) float, at one threshold, NaN for images without lesions.
        n_lesions: (N,) predictions and references of each image together.

    >>> pooled_accuracy(np.array([1.0, 0.0, np.nan]), np.array([2, 2, 0]))
    0.3333333333333333
    """
    # From TP / (n - TP), which leaves only rounding to undo.
    found = np.rint(np.nan_to_num(n_lesions * accuracies / (1 + accuracies)))
    return _accuracy(int(found.sum()), int(n_lesions.sum()))


def _accuracy(tp: int, n_lesions: int) -> float:
    return tp / (n_lesions - tp) if n_lesions else math.nan


def _n_matched(table: OverlapTable, threshold: float) -> int:
    close = table.pair_iou >= threshold
    ends = table.pair_prediction[close], table.pair_reference[close]
    # Above 0.5 a lesion has one partner at most; at exactly 0.5 it may have two.
    graph = csr_array((np.ones(len(ends[0])), ends), shape=(len(table.prediction_ids), len(table.reference_ids)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()) if len(ends[0]) else 0
