"""What of a case counts as lesions where the reference has lesion voxels of which nobody said which lesion they are."""

from dataclasses import dataclass, replace

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.matching import Matches, match
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable

# The metrics that are given where an id of unknown instances is declared.
OF_UNKNOWN = ("n_unknown_voxels", "unknown_mm3", "n_predictions_left_out")


@dataclass(frozen=True, eq=False)
class Known:
    """All predictions of a case, and the lesions of the reference that are known.

    Attributes:
        foreground: of both maps, also of unknown instances.
        whole_table: its overlaps; unknown instances are one reference there.
        table: overlaps with the known lesions only.
        unknown: the reference's id of unknown instances, or None.
        unknown_voxels: (P,) int64, voxels of each prediction that are of unknown instances.
    """

    foreground: Foreground
    whole_table: OverlapTable
    table: OverlapTable
    unknown: int | None
    unknown_voxels: np.ndarray

    @classmethod
    def of(cls, foreground: Foreground, unknown: int | None) -> "Known":
        """Tell the known lesions from the unknown ones.

        >>> known = Known.of(Foreground.of(np.array([[1, 1, 0, 2]]), np.array([[9, 9, 0, 5]])), 9)
        >>> known.table.reference_ids.tolist(), known.unknown_voxels.tolist()
        ([5], [2, 0])
        """
        whole = OverlapTable.of(foreground)
        is_unknown = whole.reference_ids == unknown
        on_unknown = is_unknown[whole.pair_reference]
        shared = whole.pair_prediction[on_unknown], whole.pair_voxels[on_unknown]
        unknown_voxels = np.bincount(*shared, len(whole.prediction_ids)).astype(np.int64)
        return cls(foreground, whole, whole.of_references(~is_unknown), unknown, unknown_voxels)

    def counted(self, kept: np.ndarray) -> Foreground:
        """The foreground without unknown instances and without the predictions that do not count, `kept` being (P,)."""
        left_out = self.table.prediction_ids[~kept]
        unknown = [] if self.unknown is None else [self.unknown]
        prediction, reference = self.foreground.prediction, self.foreground.reference
        return replace(
            self.foreground, prediction=_without(prediction, left_out), reference=_without(reference, unknown)
        )

    def metrics(self, kept: np.ndarray, voxel_mm3: float) -> dict[str, float]:
        """Size of the unknown instances, and number of predictions left out; empty if no unknown id is declared.

        Args:
            kept: (P,) bool, the predictions that count.
            voxel_mm3: volume of a voxel (in 2D, the area of a pixel in mm2).
        """
        if self.unknown is None:
            return {}
        n_voxels = int(self.whole_table.reference_voxels.sum() - self.table.reference_voxels.sum())
        return dict(zip(OF_UNKNOWN, (n_voxels, n_voxels * voxel_mm3, int(np.count_nonzero(~kept))), strict=True))


def match_known(
    table: OverlapTable, unknown_voxels: np.ndarray, rule: str, iou_threshold: float
) -> tuple[np.ndarray, OverlapTable, Matches]:
    """Match predictions to known lesions, and leave out those that lie on unknown ones.

    A prediction does not count if it has no match and more than half of its voxels are of unknown instances, as in the
    panoptic quality of images with void pixels (Kirillov et al., CVPR 2019).

    Args:
        table: overlaps of all predictions with the known lesions.
        unknown_voxels: (P,) voxels of each prediction that are of unknown instances.
        rule: of :func:`.matching.match`.
        iou_threshold: likewise.

    Returns:
        (P,) bool, which predictions count; the overlaps of these; and their matches.

    >>> table = OverlapTable.of(Foreground.of(np.array([[1, 1, 1, 2, 2]]), np.array([[5, 0, 0, 0, 0]])))
    >>> [match_known(table, np.array([2, voxels]), "paper", 0.1)[0].tolist() for voxels in (1, 2)]
    [[True, True], [True, False]]
    """
    matches = match(table, rule, iou_threshold)
    kept = 2 * unknown_voxels <= table.prediction_voxels
    kept[matches.prediction] = True
    if kept.all():
        return kept, table, matches
    renumbered = replace(matches, prediction=(np.cumsum(kept) - 1)[matches.prediction])
    return kept, table.of_predictions(kept), renumbered


def _without(ids: np.ndarray, others: np.ndarray | list[int]) -> np.ndarray:
    return np.where(np.isin(ids, others), 0, ids) if len(others) else ids
