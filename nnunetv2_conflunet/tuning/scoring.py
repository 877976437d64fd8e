"""The metrics of one case at every point of a grid, from one reading of its files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.formulas import detection_metrics
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground, OverlapTable
from nnunetv2_conflunet.evaluation.metrics.unknown import match_known
from nnunetv2_conflunet.imageio.unknown import without_unknown
from nnunetv2_conflunet.postprocessing import InstantiationSettings, filter_small_instances
from nnunetv2_conflunet.postprocessing.assignment import Assigner
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.merging import MergeRule, merge_regions
from nnunetv2_conflunet.postprocessing.pieces import Regions, connected_regions, instance_confidence
from nnunetv2_conflunet.postprocessing.size_filter import refuse_limits
from nnunetv2_conflunet.postprocessing.voxels import Voxels, sizes_and_boxes
from nnunetv2_conflunet.tuning.choice import means
from nnunetv2_conflunet.tuning.search import SEARCHED
from nnunetv2_conflunet.utilities.array_checks import check_connectivity, check_spacing, flat_axes

METRICS = ("PQ", "F1")


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """One validation case as it is scored.

    Attributes:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool, the segmentation.
        reference: the same shape, instance ids.
        spacing_mm: voxel size in mm along each axis.
        heads: `heatmap`, `offsets_mm` and `heads_box` of :func:`instantiate`.
        probability: the same shape, of the foreground; settings with a `min_confidence` need it.
    """

    foreground: np.ndarray
    reference: np.ndarray
    spacing_mm: tuple[float, ...]
    heads: dict[str, np.ndarray]
    probability: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class ScoredInstances:
    """Instances before any size filter, as the scoring of their filtered forms needs them.

    Attributes:
        table: overlaps with the filtered reference; its predictions are the instances.
        n_voxels: (P,) of each instance.
        extent_voxels: (P, dim) of its bounding box.
        unknown_voxels: (P,) its voxels that are of unknown instances in the reference.
        confidence: (P,) of each instance; NaN, which no least confidence removes, without probabilities.
    """

    table: OverlapTable
    n_voxels: np.ndarray
    extent_voxels: np.ndarray
    unknown_voxels: np.ndarray
    confidence: np.ndarray

    def score(
        self, settings: InstantiationSettings, scoring: EvaluationSettings, spacing_mm: np.ndarray
    ) -> list[float]:
        """The metrics of what the size filters of both settings and `min_confidence` leave, ordered as METRICS."""
        counts = ~(self.confidence < settings.min_confidence)
        for limits in (settings.limits, scoring.limits):
            counts &= limits.reached(self.n_voxels, self.extent_voxels, spacing_mm)
        table, unknown_voxels = self.table.of_predictions(counts), self.unknown_voxels[counts]
        _, table, matches = match_known(table, unknown_voxels, scoring.matching, scoring.iou_threshold)
        metrics = detection_metrics(table, matches)
        return [metrics[name] for name in METRICS]


def by_name(values: np.ndarray) -> dict[str, float]:
    """Values in the order of :data:`METRICS`, by their names, as records hold them."""
    return dict(zip(METRICS, map(float, values), strict=True))


@dataclass(frozen=True, eq=False)
class GridScores:
    """The metrics of every case at every point of a grid.

    Attributes:
        points: of the grid.
        scores: (cases, points, metrics) float64, NaN where undefined.
        n_lesions: lesions in all references that the size filter leaves.
    """

    points: list[InstantiationSettings]
    scores: np.ndarray
    n_lesions: int

    def of_metric(self, name: str) -> np.ndarray:
        """(cases, points) of one metric."""
        return self.scores[:, :, METRICS.index(name)]

    def of_point(self, position: int) -> dict[str, Any]:
        """The settings of a point and the means of its metrics."""
        return {"settings": self.points[position].to_dict(), **by_name(means(self.scores[:, position]))}

    def table(self) -> pd.DataFrame:
        """One row a point: its settings and, of each metric, mean, standard deviation and number of cases."""
        table = pd.DataFrame({name: [getattr(point, name) for point in self.points] for name in SEARCHED})
        for name, of_metric in zip(METRICS, np.moveaxis(self.scores, 2, 0), strict=True):
            values = pd.DataFrame(of_metric)
            # As the evaluation has them: undefined values are left out, and a sample's standard deviation.
            table[f"{name}_mean"], table[f"{name}_std"] = values.mean(), values.std()
            table[f"{name}_n"] = values.count()
        return table


def score_grid(
    case: CaseArrays, points: Sequence[InstantiationSettings], scoring: EvaluationSettings
) -> tuple[np.ndarray, int]:
    """What the evaluation of a case gives for each of several settings of center-offset.

    The evaluator's size filter (`scoring`) acts on the reference and, after the filter of a point, on the prediction. A
    reference is the same at all points, so that a strict filter cannot make the task easier.

    Args:
        case: the case.
        points: settings of one connectivity and one `top_k`.
        scoring: settings of the evaluation.

    Returns:
        (points, metrics) float64 in the order of :data:`METRICS`, NaN where undefined; and the number of lesions in the
        reference that the filter leaves.

    Raises:
        InputError: shapes that do not belong together, NaN or infinite heads, a spacing that does not fit.

    >>> square, heatmap = np.ones((4, 4), int), np.zeros((4, 4))
    >>> case = CaseArrays(square > 0, square, (1.0, 1.0), {"heatmap": heatmap, "offsets_mm": np.stack([heatmap] * 2)})
    >>> score_grid(case, [InstantiationSettings()], EvaluationSettings())
    (array([[1., 1.]]), 1)
    """
    instances_at = InstancesAtPoints(case, points, scoring)
    spacing_mm = instances_at.heads.image_spacing_mm
    scores = np.empty((len(points), len(METRICS)))
    for row, point in zip(scores, points, strict=True):
        row[:] = instances_at.scored(point).score(point, scoring, spacing_mm)
    reference = instances_at.both.reference
    return scores, len(np.unique(reference[reference > 0]))


class InstancesAtPoints:
    """Makes the instances of one case before any size filter, for each set of centers and each merging once.

    Args:
        case: the case, on whose reference the evaluator's size filter acts.
        points: all settings that will be asked for, of one connectivity.
        scoring: settings of the evaluation.
    """

    def __init__(self, case: CaseArrays, points: Sequence[InstantiationSettings], scoring: EvaluationSettings):
        foreground, shape, probability = case.foreground, case.foreground.shape, case.probability
        refuse_limits(case.reference.shape, case.spacing_mm, scoring.limits)
        reference = without_unknown(case.reference, scoring.unknown)
        is_unknown = reference != case.reference
        reference, _ = filter_small_instances(reference, case.spacing_mm, **asdict(scoring.limits))
        spacing_mm = check_spacing(case.spacing_mm, foreground.ndim)
        if flat_axes(foreground.ndim, shape):
            foreground, reference, is_unknown, spacing_mm = foreground[0], reference[0], is_unknown[0], spacing_mm[1:]
            probability = None if probability is None else probability[0]
        self.heads = HeadMaps.of(image_shape=shape, image_spacing_mm=spacing_mm, **case.heads)
        self.both = Foreground.of(foreground, reference)
        self.inside = self.both.prediction > 0
        self.voxels = Voxels(self.both.coordinates[self.inside])
        index = tuple(self.voxels.coordinates.T)
        self._is_unknown = is_unknown[index]
        self._probability = None if probability is None else probability[index]
        self.connectivity = check_connectivity(points[0].connectivity, self.voxels.dim)
        self._component = self.voxels.components(self.connectivity)
        self._assigner = Assigner(self.voxels, self.heads, points)
        self._made: dict[tuple[str, bytes, MergeRule | None], ScoredInstances] = {}

    def pieces(self, point: InstantiationSettings) -> Regions:
        """The instances at a point before any are merged."""
        return connected_regions(self.voxels, self._assigner.assign(point), self.connectivity, self._component)

    def scored(self, point: InstantiationSettings) -> ScoredInstances:
        """The instances at a point."""
        centers = self._assigner.centers(point)[: point.top_k]
        key = point.pieces, centers.indices.tobytes(), point.merge
        if key not in self._made:
            regions = self.pieces(point)
            if point.merge is not None:
                regions = merge_regions(self.voxels, regions, self.heads, point.merge, self.connectivity)
            _, n_voxels, first, last = sizes_and_boxes(self.voxels.coordinates, regions.instance)
            overlaps, unknown_voxels = self.overlaps_of(regions.instance), self.unknown_voxels_of(regions.instance)
            confidence = instance_confidence(regions.instance, self._probability)
            self._made[key] = ScoredInstances(overlaps, n_voxels, last - first + 1, unknown_voxels, confidence)
        return self._made[key]

    def overlaps_of(self, instance: np.ndarray) -> OverlapTable:
        """Overlaps with the filtered reference of instances given as (N,) ids 1..K of the foreground voxels."""
        prediction = np.zeros_like(self.both.prediction)
        prediction[self.inside] = instance
        return OverlapTable.of(replace(self.both, prediction=prediction))

    def unknown_voxels_of(self, instance: np.ndarray) -> np.ndarray:
        """(K,) how many voxels of such instances are of unknown ones in the reference."""
        return np.bincount(instance, self._is_unknown, 1)[1:].astype(np.int64)
