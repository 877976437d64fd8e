"""Matching of predicted to reference instances."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable
from nnunetv2_conflunet.postprocessing.voxels import groups, joined_by_pairs


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of matched instances, by ascending prediction.

    Attributes:
        prediction: (M,) int64, index of the prediction in the overlap table.
        reference: (M,) int64, index of the reference. Only under `isbi2024` several predictions may share one.
        iou: (M,) float64.
        dice: (M,) float64.
    """

    prediction: np.ndarray
    reference: np.ndarray
    iou: np.ndarray
    dice: np.ndarray

    def swapped(self) -> "Matches":
        """The same pairs with the roles exchanged, in the same order."""
        return Matches(self.reference, self.prediction, self.iou, self.dice)


def match(table: OverlapTable, rule: str = "paper", iou_threshold: float = 0.1) -> Matches:
    """Match predicted to reference instances.

    Only pairs with an IoU strictly above the threshold can match.

    Args:
        table: overlaps of the two maps.
        rule: one of

            - ``"paper"``: each prediction takes the reference with the highest IoU, at a tie the lowest id; a
              reference claimed several times keeps the prediction with the highest IoU, at a tie the lowest id, and
              the others stay unmatched (Wynen et al., ISBI 2024).
            - ``"isbi2024"``: the same without the second step, as in the paper's original code; several predictions may
              match one reference.
            - ``"greedy"``: pairs in order of decreasing IoU, at a tie by prediction id, then reference id; a pair
              matches if both sides are still free.
            - ``"hungarian"``: the one-to-one set of pairs with the greatest sum of IoU
              (:func:`scipy.optimize.linear_sum_assignment`, which also decides between equal sums).
        iou_threshold: in [0, 1).

    >>> from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
    >>> maps = np.array([[1, 1, 1, 2, 2]]), np.array([[7, 7, 7, 7, 7]])
    >>> found = match(OverlapTable.of(Foreground.of(*maps)))
    >>> found.prediction, found.reference, found.iou
    (array([0]), array([0]), array([0.6]))
    """
    iou = table.pair_iou
    candidates = np.flatnonzero(iou > iou_threshold)
    chosen = np.sort(MATCHING_RULES[rule](table, iou, candidates))
    return Matches(table.pair_prediction[chosen], table.pair_reference[chosen], iou[chosen], table.pair_dice[chosen])


def best_pairs(table: OverlapTable) -> np.ndarray:
    """(P,) int64, index of each prediction's pair with the highest IoU, at a tie the lowest reference id; else -1."""
    best = np.full(len(table.prediction_ids), -1, np.int64)
    pairs = _best_pair_per(table.pair_prediction, table.pair_iou, np.arange(len(table.pair_voxels)))
    best[table.pair_prediction[pairs]] = pairs
    return best


def matching_groups(table: OverlapTable, iou_threshold: float = 0.1) -> list[np.ndarray]:
    """Predictions that can compete, directly or through others, for a reference: ascending indices of each group.

    Every prediction is in one group; one that could match no reference is alone. The groups are matched independently.

    >>> from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
    >>> maps = np.array([[1, 1, 1, 2, 2, 0, 3]]), np.array([[7, 7, 7, 7, 7, 0, 0]])
    >>> [group.tolist() for group in matching_groups(OverlapTable.of(Foreground.of(*maps)))]
    [[0, 1], [2]]
    """
    group = _connected_groups(table, np.flatnonzero(table.pair_iou > iou_threshold))
    return [members for _, members in groups(group[: len(table.prediction_ids)])]


def _connected_groups(table: OverlapTable, candidates: np.ndarray) -> np.ndarray:
    """(P + R,) the group of each prediction and then of each reference: those that a chain of pairs connects."""
    n_prediction = len(table.prediction_ids)
    ends = table.pair_prediction[candidates], n_prediction + table.pair_reference[candidates]
    return joined_by_pairs(n_prediction + len(table.reference_ids), *ends)


def _best_pair_per(owner: np.ndarray, iou: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """For each owner, its candidate pair with the highest IoU, at a tie the first in the table."""
    order = candidates[np.lexsort((candidates, -iou[candidates], owner[candidates]))]
    _, first = np.unique(owner[order], return_index=True)
    return order[first]


def _many_to_one(table: OverlapTable, iou: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return _best_pair_per(table.pair_prediction, iou, candidates)


def _paper(table: OverlapTable, iou: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return _best_pair_per(table.pair_reference, iou, np.sort(_many_to_one(table, iou, candidates)))


def _greedy(table: OverlapTable, iou: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    free_prediction = np.ones(len(table.prediction_ids), bool)
    free_reference = np.ones(len(table.reference_ids), bool)
    chosen = []
    for pair in candidates[np.argsort(-iou[candidates], kind="stable")]:
        prediction, reference = table.pair_prediction[pair], table.pair_reference[pair]
        if free_prediction[prediction] and free_reference[reference]:
            free_prediction[prediction] = free_reference[reference] = False
            chosen.append(pair)
    return np.array(chosen, np.int64)


def _hungarian(table: OverlapTable, iou: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    # Instances not connected by a chain of overlaps cannot compete, so each connected group is solved separately.
    group = _connected_groups(table, candidates)
    chosen = [candidates[:0]]
    for _, members in groups(group[table.pair_prediction[candidates]]):
        pairs = candidates[members]
        _, row = np.unique(table.pair_prediction[pairs], return_inverse=True)
        _, column = np.unique(table.pair_reference[pairs], return_inverse=True)
        gain = np.zeros((row.max() + 1, column.max() + 1))
        gain[row, column] = iou[pairs]
        partner = np.full(len(gain), -1)
        rows, partner_of_rows = linear_sum_assignment(gain, maximize=True)
        partner[rows] = partner_of_rows
        chosen.append(pairs[partner[row] == column])
    return np.concatenate(chosen)


MATCHING_RULES = {"paper": _paper, "isbi2024": _many_to_one, "greedy": _greedy, "hungarian": _hungarian}
