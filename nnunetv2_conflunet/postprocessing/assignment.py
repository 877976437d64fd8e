"""Center-offset: which peaks are centers, and to which each voxel goes: by its offset, or by climbing the heatmap."""

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from nnunetv2_conflunet.postprocessing.centers import ROUNDING, Peaks, find_peaks
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.pieces import Assignment, nearest_label
from nnunetv2_conflunet.postprocessing.prominence import climb, is_consistent, passes, relative_prominence
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.voxels import Voxels


class Assigner:
    """Finds the centers of one image and divides its foreground among them; what several settings share is made once.

    Args:
        voxels: the foreground.
        heads: heatmap and offsets.
        settings: all settings of center-offset that will be asked for.

    >>> heads = HeadMaps.of(np.array([[0.0, 0.9, 0.2, 0.3, 0.5]]), np.zeros((2, 1, 5)), (1, 5), np.ones(2))
    >>> by_offsets, by_climbing = InstantiationSettings(), InstantiationSettings(pieces="climbing")
    >>> assigner = Assigner(Voxels.of(np.ones((1, 5), bool)), heads, [by_offsets, by_climbing])
    >>> assigner.assign(by_offsets).center, assigner.assign(by_climbing).center
    (array([1, 1, 1, 2, 2]), array([1, 1, 1, 2, 2]))
    """

    def __init__(self, voxels: Voxels, heads: HeadMaps, settings: Iterable[InstantiationSettings]):
        settings = list(settings)
        self.voxels, self.heads = voxels, heads
        self._lowest_threshold = min(one.heatmap_threshold for one in settings)
        self._largest_prominence = max(one.min_prominence for one in settings)
        self._peaks: dict[float, tuple[Peaks, np.ndarray]] = {}
        self._consistent: dict[tuple[bytes, float], Peaks] = {}

    def centers(self, settings: InstantiationSettings) -> Peaks:
        """The centers that `settings` ask for, before `top_k` of them are kept.

        By offsets, voxels of the heatmap's grid, inside the foreground or not: the center of a concave lesion lies
        outside of it. By climbing, voxels of the image: the summits to which its foreground climbs whose heatmap is at
        least the threshold; window, prominence and consistency do not act on them.
        """
        if settings.pieces == "climbing":
            summits = self._summits(settings)
            return Peaks(self.voxels.coordinates[summits], self._height[summits])
        peaks, prominence = self._peaks_in_window(settings.window_mm)
        # Neither whether a voxel is a peak nor its prominence depends on the threshold.
        high = peaks.scores >= np.float32(settings.heatmap_threshold)
        peaks = peaks[high & (prominence >= settings.min_prominence - ROUNDING)]
        key = peaks.indices.tobytes(), settings.min_consistency
        if key not in self._consistent:
            offsets_mm = self.heads.offsets_mm[(slice(None), *peaks.indices.T)].T
            centers_mm = self.heads.positions_mm(peaks.indices)
            self._consistent[key] = peaks[is_consistent(centers_mm, offsets_mm, settings.min_consistency)]
        return self._consistent[key]

    def assign(self, settings: InstantiationSettings) -> Assignment:
        """The center of each voxel; `top_k` acts."""
        if settings.pieces == "offsets":
            return assign_by_offsets(self.voxels, self.heads, self.centers(settings)[: settings.top_k])
        centers = self._summits(settings)[: settings.top_k]
        return assign_by_climbing(self.voxels, self.heads.image_spacing_mm, self._height, self._summit, centers)

    def _peaks_in_window(self, window_mm: float) -> tuple[Peaks, np.ndarray]:
        """The peaks from the lowest threshold on and, where any settings ask for it, their prominence; else 1."""
        if window_mm not in self._peaks:
            heatmap, largest = self.heads.heatmap, self._largest_prominence
            peaks = find_peaks(heatmap, self.heads.spacing_mm, threshold=self._lowest_threshold, window_mm=window_mm)
            prominence = np.ones(len(peaks.scores))
            if largest > 0:
                prominence = relative_prominence(heatmap, peaks.indices, largest)
            self._peaks[window_mm] = peaks, prominence
        return self._peaks[window_mm]

    def _summits(self, settings: InstantiationSettings) -> np.ndarray:
        """(K,) positions of the summits that are centers, the highest first, of equally high ones in C order."""
        return self._ranked[self._height[self._ranked] >= np.float32(settings.heatmap_threshold)]

    @cached_property
    def _ranked(self) -> np.ndarray:
        summits = np.unique(self._summit)
        return summits[np.argsort(-self._height[summits], kind="stable")]

    @cached_property
    def _height(self) -> np.ndarray:
        return self.heads.heatmap_at(self.voxels.coordinates)

    @cached_property
    def _summit(self) -> np.ndarray:
        return climb(self.voxels, self._height)


def assign_by_offsets(voxels: Voxels, heads: HeadMaps, centers: Peaks) -> Assignment:
    """Voxel v goes to the center argmin_k || C_k - (v + O(v)) || in mm (Wynen et al., ISBI 2024)."""
    n = len(voxels)
    if not n or not len(centers.scores):
        return Assignment(np.zeros(n, np.int64), np.zeros(n), centers.scores)
    centers_mm = heads.positions_mm(centers.indices)
    voxels_mm = voxels.coordinates * heads.image_spacing_mm
    pointed_mm = voxels_mm + heads.offsets_at(voxels.coordinates)
    # Centers are numbered from the highest, so that a tie goes to the higher one.
    center, _ = nearest_label(pointed_mm, centers_mm, np.arange(1, len(centers_mm) + 1))
    return Assignment(center, np.linalg.norm(voxels_mm - centers_mm[center - 1], axis=1), centers.scores)


def assign_by_climbing(
    voxels: Voxels, spacing_mm: np.ndarray, height: np.ndarray, summit: np.ndarray, centers: np.ndarray
) -> Assignment:
    """Voxel v goes to the center to which it climbs the heatmap: a watershed of the negated heatmap within the mask.

    A basin whose summit is no center joins what lies behind its highest pass, the highest pass of the mask first, of
    equally high ones that between the summits that come first in C order. Two that have centers stay apart; what no
    pass joins to a center has none.

    Args:
        voxels: the foreground.
        spacing_mm: (dim,) voxel size.
        height: (N,) float32, the heatmap at the voxels.
        summit: (N,) of :func:`.prominence.climb`.
        centers: (K,) positions of the summits that are centers.

    >>> voxels, height = Voxels.of(np.ones((1, 5), bool)), np.array([0.9, 0.1, 0.2, 0.1, 0.5])
    >>> assign_by_climbing(voxels, np.ones(2), height, climb(voxels, height), np.array([0, 4])).center
    array([1, 1, 1, 2, 2])
    """
    n, scores = len(voxels), height[centers]
    if not len(centers):
        return Assignment(np.zeros(n, np.int64), np.zeros(n), scores)
    # The center of each basin under the position of its summit; of basins that were joined, under their set's name.
    center_of = np.zeros(n, np.int64)
    center_of[centers] = np.arange(1, len(centers) + 1)
    low = np.flatnonzero(center_of[summit] == 0)
    if len(low):
        basins = np.unique(summit)
        joined = DisjointSet(basins.tolist())
        for one, other, _ in passes(voxels, height, summit, low):
            of_one, of_other = center_of[joined[one]], center_of[joined[other]]
            if not (of_one and of_other):
                joined.merge(one, other)
                center_of[joined[one]] = of_one or of_other
        center_of[basins] = center_of[[joined[basin] for basin in basins.tolist()]]
    center = center_of[summit]
    voxels_mm = voxels.coordinates * spacing_mm
    away_mm = np.linalg.norm(voxels_mm - voxels_mm[centers][center - 1], axis=1)
    return Assignment(center, np.where(center > 0, away_mm, 0), scores)
