"""Learning on a model's own cross-validation when touching pieces are one lesion."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import FEATURES, MergeRule, PieceGraph
from nnunetv2_conflunet.tuning.choice import choose, means
from nnunetv2_conflunet.tuning.scoring import METRICS, CaseArrays, InstancesAtPoints

# What is tried; 0 merges all that touch, as connected components do.
THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
# Fewer pairs of one lesion or of two tell nothing.
FEWEST_PAIRS = 10
# Inverse strength of the penalty on the weights of standardized features.
REGULARIZATION = 0.3
# A case is judged by a rule that the cases of the other groups have taught.
MOST_GROUPS = 20


@dataclass(frozen=True, eq=False)
class TouchingPieces:
    """The pairs of touching pieces of one case.

    Attributes:
        features: (P, features), see :class:`.MergeRule`.
        of_one_lesion: (P,) bool, whether most voxels of both pieces are of one lesion of the reference.
    """

    features: np.ndarray
    of_one_lesion: np.ndarray


def touching_pieces(case: CaseArrays, settings: InstantiationSettings, scoring: EvaluationSettings) -> TouchingPieces:
    """Compare the pieces that some settings make of a case with its reference, as filtered by the evaluator."""
    at_points = InstancesAtPoints(case, [settings], scoring)
    piece = at_points.pieces(settings).instance - 1
    graph = PieceGraph(at_points.voxels, piece, at_points.heads, at_points.connectivity)
    pairs = graph.pairs()
    first, second = main_lesions(piece, at_points.both.reference[at_points.inside])[pairs].T
    return TouchingPieces(graph.features(pairs), (first == second) & (first > 0))


def main_lesions(piece: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(K,) the lesion that has most voxels of each piece, 0 for none; of equally large ones that of the lowest id.

    Args:
        piece: (N,) 0..K-1.
        reference: (N,) ids of the reference at the same voxels, 0 is background.

    >>> main_lesions(np.array([0, 0, 0, 1, 1]), np.array([5, 7, 7, 0, 0]))
    array([7, 0])
    """
    main = np.zeros(piece.max(initial=-1) + 1, np.int64)
    inside = reference > 0
    (member, lesion), count = np.unique(np.stack([piece[inside], reference[inside]]), axis=1, return_counts=True)
    # What comes last stays: the most voxels, of equally many the lowest id.
    order = np.lexsort((-lesion, count))
    main[member[order]] = lesion[order]
    return main


def learn_rule(cases: Sequence[TouchingPieces], threshold: float) -> MergeRule | None:
    """Logistic regression over the pairs of some cases; None where they hold too few pairs of either kind."""
    features = np.concatenate([np.zeros((0, len(FEATURES))), *(case.features for case in cases)])
    of_one_lesion = np.concatenate([np.zeros(0, bool), *(case.of_one_lesion for case in cases)])
    if min(np.count_nonzero(of_one_lesion), np.count_nonzero(~of_one_lesion)) < FEWEST_PAIRS:
        return None
    scaler = StandardScaler().fit(features)
    learned = LogisticRegression(C=REGULARIZATION).fit(scaler.transform(features), of_one_lesion)
    weights = learned.coef_[0] / scaler.scale_
    intercept = learned.intercept_[0] - weights @ scaler.mean_
    return MergeRule(threshold, float(intercept), *map(float, weights))


def held_out_points(
    cases: Sequence[TouchingPieces], settings: InstantiationSettings
) -> list[list[InstantiationSettings]] | None:
    """For each case the settings to score: without merging, then at each threshold with a rule that others taught.

    None where the others of a case hold too few pairs.
    """
    group = np.arange(len(cases)) % MOST_GROUPS
    points = []
    for own in group:
        rule = learn_rule([case for case, other in zip(cases, group, strict=True) if other != own], THRESHOLDS[0])
        if rule is None:
            return None
        rules = [replace(rule, threshold=threshold) for threshold in THRESHOLDS]
        points.append([settings, *(replace(settings, merge=rule) for rule in rules)])
    return points


def choose_rule(
    cases: Sequence[TouchingPieces], scores: np.ndarray, metric: str, seed: int
) -> tuple[MergeRule | None, dict[str, Any]]:
    """Whether to merge, and at which threshold: the best, unless it is as good within the noise to merge nothing.

    Args:
        cases: their pairs.
        scores: (cases, 1 + thresholds, metrics) at the points of :func:`held_out_points`.
        metric: what decides.
        seed: of the bootstrap.

    Returns:
        The rule that all cases have taught, None to merge nothing; and the record of the choice.
    """
    # Nothing is preferred to something, and of thresholds that which merges least.
    preference = [0, *range(len(THRESHOLDS), 0, -1)]
    choice = choose(scores[:, :, METRICS.index(metric)], 0, preference, seed)
    rules = [None, *(learn_rule(cases, threshold) for threshold in THRESHOLDS)]
    rule, best = rules[choice.chosen], rules[choice.best]
    of_point = [dict(zip(METRICS, map(float, point), strict=True)) for point in means(scores)]
    return rule, {
        **account_of_pairs(cases),
        "without": of_point[0],
        "best": {**of_point[choice.best], "rule": best and asdict(best)},
        "by_threshold": dict(zip(map(str, THRESHOLDS), of_point[1:], strict=True)),
        "difference": choice.difference,
        "interval_95": [choice.low, choice.high],
        "decision": "merging" if rule else "no merging is best" if best is None else "no merging within the noise",
    }


def account_of_pairs(cases: Sequence[TouchingPieces]) -> dict[str, Any]:
    """How many pairs there are, and what stands in a record where they are too few to learn from."""
    of_one_lesion = sum(int(np.count_nonzero(case.of_one_lesion)) for case in cases)
    n_pairs = sum(len(case.of_one_lesion) for case in cases)
    return {"n_pairs": n_pairs, "n_pairs_of_one_lesion": of_one_lesion, "decision": "too few pairs"}
