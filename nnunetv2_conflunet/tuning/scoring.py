"""The metrics of one case at every point of a grid, from one reading of its files."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.formulas import detection_metrics
from nnunetv2_conflunet.evaluation.metrics.matching import match
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable
from nnunetv2_conflunet.postprocessing import InstantiationSettings, filter_small_instances
from nnunetv2_conflunet.postprocessing.center_offset import assign_by_offsets, consistent_peaks
from nnunetv2_conflunet.postprocessing.heads import Heads, check_heads
from nnunetv2_conflunet.postprocessing.merging import MergeRule, merge_regions
from nnunetv2_conflunet.postprocessing.peaks import Peaks, find_peaks
from nnunetv2_conflunet.postprocessing.pieces import Regions, connected_regions
from nnunetv2_conflunet.postprocessing.prominence import is_prominent, relative_prominence
from nnunetv2_conflunet.postprocessing.size_filter import refuse_limits
from nnunetv2_conflunet.postprocessing.voxels import Voxels, sizes_and_boxes
from nnunetv2_conflunet.utilities.array_checks import check_connectivity, check_spacing, flat_axes

METRICS = ("PQ", "F1")


@dataclass(frozen=True, eq=False)
class ScoredInstances:
    """Instances before any size filter, as the scoring of their filtered forms needs them.

    Attributes:
        table: overlaps with the filtered reference; its predictions are the instances.
        n_voxels: (P,) of each instance.
        extent_voxels: (P, dim) of its bounding box.
    """

    table: OverlapTable
    n_voxels: np.ndarray
    extent_voxels: np.ndarray


def score_grid(
    foreground: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, ...],
    heads: dict[str, np.ndarray],
    points: list[InstantiationSettings],
    scoring: EvaluationSettings,
) -> tuple[np.ndarray, int]:
    """What the evaluation of a case gives for each of several settings of center-offset.

    The evaluator's size filter (`scoring`) acts on the reference and, after the filter of a point, on the prediction. A
    reference is the same at all points, so that a strict filter cannot make the task easier.

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool, the segmentation.
        reference: the same shape, instance ids.
        spacing_mm: voxel size in mm along each axis.
        heads: `heatmap`, `offsets_mm` and `heads_box` of :func:`instantiate`.
        points: settings of one connectivity and one `top_k`.
        scoring: settings of the evaluation.

    Returns:
        (points, metrics) float64 in the order of :data:`METRICS`, NaN where undefined; and the number of lesions in the
        reference that the filter leaves.

    Raises:
        InputError: shapes that do not belong together, NaN or infinite heads, a spacing that does not fit.
    """
    instances_at = InstancesAtPoints.of(foreground, reference, spacing_mm, heads, points, scoring)
    spacing, scoring_limits = instances_at.heads.image_spacing_mm, scoring.limits
    scores = np.empty((len(points), len(METRICS)))
    for i, point in enumerate(points):
        instances = instances_at(point)
        large = np.ones(len(instances.n_voxels), bool)
        for limits in (point.limits, scoring_limits):
            large &= limits.reached(instances.n_voxels, instances.extent_voxels, spacing)
        table = with_predictions(instances.table, large)
        metrics = detection_metrics(table, match(table, scoring.matching, scoring.iou_threshold))
        scores[i] = [metrics[name] for name in METRICS]
    return scores, len(np.unique(instances_at.both.reference[instances_at.both.reference > 0]))


class InstancesAtPoints:
    """Makes the instances of one case before any size filter, for each set of centers and each merging once."""

    def __init__(self, both: Foreground, heads: Heads, points: list[InstantiationSettings]):
        self.both, self.heads, self.top_k = both, heads, points[0].top_k
        self.inside = both.prediction > 0
        self.voxels = Voxels(both.coordinates[self.inside])
        self.connectivity = check_connectivity(points[0].connectivity, self.voxels.dim)
        self.component = self.voxels.components(self.connectivity)
        self.lowest_threshold = min(point.heatmap_threshold for point in points)
        self.largest_prominence = max(point.min_prominence for point in points)
        self.peaks: dict[float, tuple[Peaks, np.ndarray]] = {}
        self.centers: dict[tuple[bytes, float], Peaks] = {}
        self.made: dict[tuple[bytes, MergeRule | None], ScoredInstances] = {}

    @classmethod
    def of(
        cls,
        foreground: np.ndarray,
        reference: np.ndarray,
        spacing_mm: tuple[float, ...],
        heads: dict[str, np.ndarray],
        points: list[InstantiationSettings],
        scoring: EvaluationSettings,
    ) -> "InstancesAtPoints":
        """Of the arguments of :func:`score_grid`, with the evaluator's size filter on the reference."""
        refuse_limits(reference.shape, spacing_mm, scoring.limits)
        reference, _ = filter_small_instances(reference, spacing_mm, **asdict(scoring.limits))
        spacing = check_spacing(spacing_mm, foreground.ndim)
        flat = len(flat_axes(foreground.ndim, foreground.shape))
        shape, spacing = foreground.shape, spacing[flat:]
        if flat:
            foreground, reference = foreground[0], reference[0]
        on_grid = check_heads(heads["heatmap"], heads["offsets_mm"], shape, spacing, heads["heads_box"])
        return cls(Foreground.of(foreground, reference), on_grid, points)

    def __call__(self, point: InstantiationSettings) -> ScoredInstances:
        """The instances at a point."""
        centers = self._centers(point)
        key = centers.indices.tobytes(), point.merge
        if key not in self.made:
            self.made[key] = self._make(centers, point.merge)
        return self.made[key]

    def pieces(self, point: InstantiationSettings) -> Regions:
        """The instances at a point before any are merged."""
        return self._pieces_of(self._centers(point))

    def _pieces_of(self, centers: Peaks) -> Regions:
        assignment = assign_by_offsets(self.voxels, self.heads, centers)
        return connected_regions(self.voxels, assignment, self.connectivity, self.component)

    def _centers(self, point: InstantiationSettings) -> Peaks:
        peaks = self._peaks(point)
        key = peaks.indices.tobytes(), point.min_consistency
        if key not in self.centers:
            self.centers[key] = consistent_peaks(peaks, self.heads, point.min_consistency)[: self.top_k]
        return self.centers[key]

    def _peaks(self, point: InstantiationSettings) -> Peaks:
        # Neither whether a voxel is a peak nor its prominence depends on the threshold.
        peaks, prominence = self._all_peaks(point.window_mm)
        high = peaks.scores >= np.float32(point.heatmap_threshold)
        return peaks[high & is_prominent(prominence, point.min_prominence)]

    def _all_peaks(self, window_mm: float) -> tuple[Peaks, np.ndarray]:
        if window_mm not in self.peaks:
            peaks = find_peaks(
                self.heads.heatmap,
                self.heads.spacing_mm,
                threshold=self.lowest_threshold,
                window_mm=window_mm,
                min_prominence=0,
            )
            prominence = relative_prominence(self.heads.heatmap, peaks.indices, self.largest_prominence)
            self.peaks[window_mm] = peaks, prominence
        return self.peaks[window_mm]

    def _make(self, centers: Peaks, merge: MergeRule | None) -> ScoredInstances:
        regions = self._pieces_of(centers)
        if merge is not None:
            regions = merge_regions(self.voxels, regions, self.heads, merge, self.connectivity)
        prediction = np.zeros_like(self.both.prediction)
        prediction[self.inside] = regions.instance
        _, n_voxels, first, last = sizes_and_boxes(self.voxels.coordinates, regions.instance)
        table = OverlapTable.of(replace(self.both, prediction=prediction))
        return ScoredInstances(table, n_voxels, last - first + 1)


def with_predictions(table: OverlapTable, kept: np.ndarray) -> OverlapTable:
    """The table of the same maps without some of the predictions.

    Args:
        table: of all predictions.
        kept: (P,) bool, which of them stay.
    """
    pairs = kept[table.pair_prediction]
    return replace(
        table,
        prediction_ids=table.prediction_ids[kept],
        prediction_voxels=table.prediction_voxels[kept],
        pair_prediction=(np.cumsum(kept) - 1)[table.pair_prediction[pairs]],
        pair_reference=table.pair_reference[pairs],
        pair_voxels=table.pair_voxels[pairs],
    )
