"""Learning on a model's own cross-validation when touching pieces are one lesion."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import FEATURES, MergeRule
from nnunetv2_conflunet.tuning.case_pieces import CasePieces
from nnunetv2_conflunet.tuning.choice import ROUNDING, choose, means
from nnunetv2_conflunet.tuning.scoring import METRICS, by_name

# What is tried; 0 merges all that touch, as connected components do.
THRESHOLDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# Fewer pairs of one lesion or of two tell nothing.
FEWEST_PAIRS = 10
# Inverse strength of the penalty on the weights of standardized features.
REGULARIZATION = 0.3
# A case is judged by a rule that the cases of the other groups have taught.
MOST_GROUPS = 20


@dataclass(frozen=True, eq=False)
class TriedPieces:
    """Pieces to merge: the settings that make them, and how they touch in all cases.

    Attributes:
        settings: without merging.
        cases: the pieces of each case.
    """

    settings: InstantiationSettings
    cases: Sequence[CasePieces]

    @classmethod
    def of_cases(
        cls, tried: Sequence[InstantiationSettings], made: Iterable[Sequence[CasePieces]]
    ) -> list["TriedPieces"]:
        """Those of each settings, from what :func:`.pieces_of_case` made of each case."""
        return [cls(one, of_cases) for one, of_cases in zip(tried, zip(*made, strict=True), strict=True)]

    @cached_property
    def rules(self) -> list[MergeRule] | None:
        """For each case a rule that the cases of other groups have taught; None where these hold too few pairs."""
        group = np.arange(len(self.cases)) % MOST_GROUPS
        of_group = {
            own: learn_rule([case for case, other in zip(self.cases, group, strict=True) if other != own], 0.0)
            for own in set(group.tolist())
        }
        rules = [rule for own in group.tolist() if (rule := of_group[own]) is not None]
        return rules if len(rules) == len(group) else None


def pieces_to_try(chosen: InstantiationSettings) -> list[InstantiationSettings]:
    """The settings whose pieces are tried for merging: the chosen ones, and many by climbing.

    >>> [(one.pieces, one.heatmap_threshold) for one in pieces_to_try(InstantiationSettings(heatmap_threshold=0.3))]
    [('offsets', 0.3), ('climbing', 0.2)]
    """
    # Many, so that none lacks a border.
    climbing = replace(
        chosen, pieces="climbing", heatmap_threshold=0.2, window_mm=3.0, min_prominence=0.0, min_consistency=0.0
    )
    return [replace(chosen, merge=None), replace(climbing, merge=None)]


def learn_rule(cases: Sequence[CasePieces], threshold: float) -> MergeRule | None:
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


def choose_merging(
    tried: Sequence[TriedPieces], chosen: InstantiationSettings, scoring: EvaluationSettings, metric: str, seed: int
) -> tuple[InstantiationSettings, dict[str, Any]]:
    """Which pieces to merge, and at which threshold, or none: the best of those that no metric calls worse than all.

    Every case is scored with a rule that it was not learned on, so that the best mean decides, and not an interval.
    What is below connected components (all that touch are merged) in the mean of any metric is left out.

    Args:
        tried: the pieces, those of `chosen` first.
        chosen: the settings to fall back on, with or without a rule.
        scoring: how to evaluate.
        metric: what decides.
        seed: of the bootstrap, for the interval that the record holds.

    Returns:
        The settings, with a rule that all cases have taught; and the record of the choice. Where no pieces have enough
        pairs, `chosen` and how many there are.
    """
    if not _candidates(tried):
        return chosen, record_of_pairs(tried)
    return best_of_scored(tried, chosen, held_out_scores(tried, chosen, scoring), metric, seed)


def held_out_scores(
    tried: Sequence[TriedPieces], chosen: InstantiationSettings, scoring: EvaluationSettings
) -> np.ndarray:
    """(cases, 1 + candidates, metrics): `chosen`, then each of :func:`_candidates` as learned without the case."""
    scores = [[case.score(chosen, scoring) for case in tried[0].cases]]
    for pieces, threshold in _candidates(tried):
        rules = [replace(rule, threshold=threshold) for rule in pieces.rules or ()]
        merged = [replace(pieces.settings, merge=rule) for rule in rules]
        scores.append([case.score(one, scoring) for case, one in zip(pieces.cases, merged, strict=True)])
    return np.swapaxes(scores, 0, 1)


def best_of_scored(
    tried: Sequence[TriedPieces], chosen: InstantiationSettings, scores: np.ndarray, metric: str, seed: int
) -> tuple[InstantiationSettings, dict[str, Any]]:
    """The choice of :func:`choose_merging` from the `scores` of :func:`held_out_scores`."""
    candidates, mean = _candidates(tried), means(scores)
    components = mean[1 + [threshold for _, threshold in candidates].index(0.0)]
    not_worse = (mean >= components - ROUNDING).all(axis=1)
    # Nothing is preferred to something, and of thresholds that which merges least.
    preference = sorted(np.flatnonzero(not_worse).tolist(), key=lambda i: (i > 0, -candidates[i - 1][1], i))
    choice = choose(scores[:, :, METRICS.index(metric)], 0, preference, seed)
    best = chosen
    if choice.best:
        pieces, threshold = candidates[choice.best - 1]
        best = replace(pieces.settings, merge=learn_rule(pieces.cases, threshold))
    record = record_of_pairs(tried)
    for (pieces, threshold), point in zip(candidates, mean[1:], strict=True):
        record["tried"][pieces.settings.pieces]["by_threshold"][str(threshold)] = by_name(point)
    return best, {
        **record,
        "without": by_name(mean[0]),
        "rule_without": None if chosen.merge is None else asdict(chosen.merge),
        "connected_components": by_name(components),
        "best": {
            **by_name(mean[choice.best]),
            "pieces": best.pieces,
            "rule": None if best.merge is None else asdict(best.merge),
        },
        **choice.record(),
        "decision": "merging" if choice.best else "no merging is best",
    }


def record_of_pairs(tried: Sequence[TriedPieces]) -> dict[str, Any]:
    """How many pairs there are of each kind of pieces; the record where they are too few to learn from."""
    counts = {
        pieces.settings.pieces: {
            "n_pairs": sum(len(case.of_one_lesion) for case in pieces.cases),
            "n_pairs_of_one_lesion": sum(int(np.count_nonzero(case.of_one_lesion)) for case in pieces.cases),
            "by_threshold": {},
        }
        for pieces in tried
    }
    return {"tried": counts, "decision": "too few pairs"}


def _candidates(tried: Sequence[TriedPieces]) -> list[tuple[TriedPieces, float]]:
    """Pieces and thresholds to score, of the pieces that have enough pairs."""
    return [(pieces, threshold) for pieces in tried if pieces.rules for threshold in THRESHOLDS]
