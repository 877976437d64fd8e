"""What of a case counts as lesions where the reference has lesion voxels of which nobody said which lesion they are."""

from dataclasses import dataclass, replace

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable, with_predictions

# The metrics that are given where an id of unknown instances is declared.
OF_UNKNOWN = ("n_unknown_voxels", "unknown_mm3", "n_predictions_left_out")


@dataclass(frozen=True, eq=False)
class Counted:
    """The lesions of a case that count: neither unknown instances of the reference nor predictions that lie on them.

    Attributes:
        foreground: both maps without the others.
        table: overlaps of these lesions.
        whole_table: overlaps of everything; unknown instances are one reference there.
        unknown_metrics: size of the unknown instances, and number of predictions left out; empty if none are declared.
    """

    foreground: Foreground
    table: OverlapTable
    whole_table: OverlapTable
    unknown_metrics: dict[str, float]

    @classmethod
    def of(cls, foreground: Foreground, unknown: int | None, voxel_mm3: float) -> "Counted":
        """Find what counts.

        Args:
            foreground: of both maps.
            unknown: the reference's id of unknown instances, or None.
            voxel_mm3: volume of a voxel (in 2D, the area of a pixel in mm2).

        >>> counted = Counted.of(Foreground.of(np.array([[1, 1, 0, 2]]), np.array([[9, 9, 0, 5]])), 9, voxel_mm3=0.5)
        >>> counted.table.prediction_ids.tolist(), counted.table.reference_ids.tolist()
        ([2], [5])
        >>> counted.unknown_metrics
        {'n_unknown_voxels': 2, 'unknown_mm3': 1.0, 'n_predictions_left_out': 1}
        """
        whole = OverlapTable.of(foreground)
        if unknown is None:
            return cls(foreground, whole, whole, {})
        is_unknown = whole.reference_ids == unknown
        known = whole.of_references(~is_unknown)
        on_unknown = is_unknown[whole.pair_reference]
        n_predictions = len(whole.prediction_ids)
        shared = np.bincount(whole.pair_prediction[on_unknown], whole.pair_voxels[on_unknown], n_predictions)
        left_out = lies_on_unknown(known, shared)
        n_voxels = int(whole.reference_voxels[is_unknown].sum())
        sizes = n_voxels, n_voxels * voxel_mm3, int(np.count_nonzero(left_out))
        counted = replace(
            foreground,
            prediction=_without(foreground.prediction, whole.prediction_ids[left_out]),
            reference=_without(foreground.reference, np.array([unknown])),
        )
        metrics = dict(zip(OF_UNKNOWN, sizes, strict=True))
        return cls(counted, with_predictions(known, ~left_out), whole, metrics)


def lies_on_unknown(known: OverlapTable, unknown_voxels: np.ndarray) -> np.ndarray:
    """Which predictions share at least as many voxels with unknown instances as with any known lesion, and some.

    Args:
        known: overlaps with the known lesions of the reference.
        unknown_voxels: (P,) voxels of each prediction that are of unknown instances.

    Returns:
        (P,) bool.

    >>> known = OverlapTable.of(Foreground.of(np.array([[1, 1, 2, 2, 3]]), np.array([[5, 0, 5, 5, 0]])))
    >>> lies_on_unknown(known, np.array([1, 0, 0])).tolist()
    [True, False, False]
    """
    largest = np.zeros(len(known.prediction_ids), np.int64)
    np.maximum.at(largest, known.pair_prediction, known.pair_voxels)
    return (unknown_voxels > 0) & (unknown_voxels >= largest)


def _without(ids: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.where(np.isin(ids, others), 0, ids)
