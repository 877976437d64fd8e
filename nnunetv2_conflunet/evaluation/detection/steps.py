"""What each confidence adds to the detections of one case when a threshold on confidence falls."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.formulas import belongs_to_confluent
from nnunetv2_conflunet.evaluation.metrics.matching import Matches, match, matching_groups
from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable
from nnunetv2_conflunet.utilities.errors import InputError

# What is counted: references with a match, predictions with and without one, and the same for confluent lesions.
COUNTED = ("found", "true", "false", "found_CLU", "true_CLU", "false_CLU")
# Under these rules a prediction takes its reference whatever the other predictions are.
INDEPENDENT_RULES = ("paper", "isbi2024")


@dataclass(frozen=True, eq=False)
class CaseSteps:
    """The detections of one case, step by step.

    Attributes:
        n_reference: lesions of the reference.
        n_clu: those of them that are confluent.
        confidence: (L,) float64, the different confidences of the predictions, descending.
        counts: (L, 6) int64, what each confidence adds to the counts of :data:`COUNTED`. Their sums down to a row are
            those of the case without the predictions of lower confidence.
    """

    n_reference: int
    n_clu: int
    confidence: np.ndarray
    counts: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """As plain values.

        >>> CaseSteps(1, 0, np.array([0.9]), np.array([[1, 1, 0, 0, 0, 0]])).to_json()["true"]
        [1]
        """
        columns = dict(zip(COUNTED, self.counts.T.tolist(), strict=True))
        return {
            "n_reference": self.n_reference,
            "n_CLU": self.n_clu,
            "confidence": self.confidence.tolist(),
            **columns,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "CaseSteps":
        """From :meth:`to_json`."""
        counts = np.array([content[name] for name in COUNTED], np.int64).reshape(len(COUNTED), -1).T
        return cls(content["n_reference"], content["n_CLU"], np.array(content["confidence"], float), counts)


def steps_of_case(
    table: OverlapTable, confluent: np.ndarray, confidence: np.ndarray, rule: str = "paper", iou_threshold: float = 0.1
) -> CaseSteps:
    """The detections of a case at every threshold on confidence.

    The lesions are matched at each threshold as if the predictions below it did not exist. Predictions of equal
    confidence have no threshold between them and enter together.

    Only predictions that compete for a reference can change each other's match, so the others are matched once.
    Under `greedy` and `hungarian` each group of competing predictions is matched again at each of its confidences;
    under the other two rules a prediction's choice does not depend on the other predictions.

    Args:
        table: overlaps of the two maps.
        confluent: (R,) bool, which references are confluent.
        confidence: (P,) finite, of each prediction; any scale.
        rule: of :func:`.matching.match`.
        iou_threshold: likewise.

    Raises:
        InputError: as many confidences as predictions are needed, all finite.

    >>> from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
    >>> table = OverlapTable.of(Foreground.of(np.array([[1, 1, 0, 2]]), np.array([[5, 5, 0, 0]])))
    >>> steps = steps_of_case(table, np.array([False]), np.array([0.6, 0.9]))
    >>> steps.confidence.tolist(), steps.counts[:, :3].tolist()
    ([0.9, 0.6], [[0, 0, 1], [1, 1, 0]])
    """
    confidence = np.asarray(confidence, float)
    if confidence.shape != table.prediction_ids.shape or not np.isfinite(confidence).all():
        raise InputError(
            f"There are {len(table.prediction_ids)} predicted lesions and confidences of shape {confidence.shape}; "
            "every lesion needs a finite confidence."
        )
    levels, level = np.unique(-confidence, return_inverse=True)
    counts = np.zeros((len(levels), len(COUNTED)), np.int64)
    if rule in INDEPENDENT_RULES:
        _add_independent(counts, table, confluent, level, rule, iou_threshold)
    else:
        for members in matching_groups(table, iou_threshold):
            _add_group(counts, table, confluent, level, members, rule, iou_threshold)
    return CaseSteps(len(table.reference_ids), int(np.count_nonzero(confluent)), -levels, counts)


def _add_independent(
    counts: np.ndarray, table: OverlapTable, confluent: np.ndarray, level: np.ndarray, rule: str, iou_threshold: float
) -> None:
    """A reference is found with the first prediction that takes it; under `paper` the later ones are false."""
    claims = match(table, "isbi2024", iou_threshold)
    order = np.argsort(level[claims.prediction], kind="stable")
    first = order[np.unique(claims.reference[order], return_index=True)[1]]
    is_true = np.zeros(len(level), bool)
    is_true[claims.prediction if rule == "isbi2024" else claims.prediction[first]] = True
    of_clu = belongs_to_confluent(table, claims, confluent)
    found_clu = first[confluent[claims.reference[first]]]
    for column, predictions in enumerate(
        (
            claims.prediction[first],
            np.flatnonzero(is_true),
            np.flatnonzero(~is_true),
            claims.prediction[found_clu],
            np.flatnonzero(is_true & of_clu),
            np.flatnonzero(~is_true & of_clu),
        )
    ):
        counts[:, column] += np.bincount(level[predictions], minlength=len(counts))


def _add_group(
    counts: np.ndarray,
    table: OverlapTable,
    confluent: np.ndarray,
    level: np.ndarray,
    members: np.ndarray,
    rule: str,
    iou_threshold: float,
) -> None:
    """Match the predictions that compete again at each of their confidences."""
    before = np.zeros(len(COUNTED), np.int64)
    for lowest in np.unique(level[members]):
        kept = np.zeros(len(level), bool)
        kept[members[level[members] <= lowest]] = True
        part = table.of_predictions(kept)
        now = _counted(part, match(part, rule, iou_threshold), confluent)
        counts[lowest] += now - before
        before = now


def _counted(table: OverlapTable, matches: Matches, confluent: np.ndarray) -> np.ndarray:
    """(6,) the counts of :data:`COUNTED` of a case."""
    found, of_clu = np.unique(matches.reference), belongs_to_confluent(table, matches, confluent)
    n_true, n_true_clu = len(matches.prediction), int(confluent[matches.reference].sum())
    n_false, n_false_clu = len(table.prediction_ids) - n_true, int(of_clu.sum()) - n_true_clu
    return np.array([len(found), n_true, n_false, confluent[found].sum(), n_true_clu, n_false_clu], np.int64)
