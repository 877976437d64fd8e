"""How far peaks rise above the ridges that lead from them to higher peaks."""

from collections.abc import Iterator

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from nnunetv2_conflunet.postprocessing.voxels import Voxels


def relative_prominence(heatmap: np.ndarray, peaks: np.ndarray, largest: float) -> np.ndarray:
    """Of each peak, by which share of its height every path to a higher peak falls at least.

    Paths lead over all direct neighbors, 26 in space and 8 in a plane. This is a summit's topographic prominence,
    or a maximum's persistence (Edelsbrunner, Letscher and Zomorodian, Discrete Comput. Geom. 2002), in units of its
    height. Apart from passes over the image and over the box of all voxels above the lowest pass that counts, work
    and memory grow with those of these voxels whose component holds two peaks or more; for `largest` near 1 they
    may be most of the image.

    Args:
        heatmap: (X, Y, Z) or (Y, X) float32.
        peaks: (K, dim) voxels of positive height, the highest first; of equally high ones the earlier counts as higher.
        largest: in [0, 1): up to here the shares are exact.

    Returns:
        (K,) float64 in [0, `largest`], and 1 for a peak from which every path falls by more than that, to the
        rounding of float32.

    >>> relative_prominence(np.float32([[1.0, 0.6, 0.8]]), np.array([[0, 0], [0, 2]]), 0.9).round(2)
    array([1.  , 0.25])
    """
    prominence = np.ones(len(peaks))
    if len(peaks) < 2:
        return prominence
    height = heatmap[tuple(peaks.T)]
    voxels, on_ridge = _ridges(heatmap, peaks, height[-1] * np.float32(1 - largest))
    if not len(on_ridge):
        return prominence
    value = heatmap[tuple(voxels.coordinates.T)]
    basin = _basins(voxels, value)
    # The highest peak of every basin; where basins have been joined, of all of them, under the set's name.
    highest: dict[int, int] = {}
    for peak, voxel in on_ridge:
        if highest.setdefault(int(basin[voxel]), peak) != peak:
            # A shoulder: from it the way leads only up.
            prominence[peak] = 0
    joined = DisjointSet(np.unique(basin).tolist())
    for one, other, saddle in _passes(voxels, value, basin):
        tops = sorted(highest.pop(joined[i]) for i in (one, other) if joined[i] in highest)
        joined.merge(one, other)
        if tops:
            highest[joined[one]] = tops[0]
        for lower in tops[1:]:
            # The pass may be the higher: where a basin's summit is no peak, a shoulder of it stands for the basin.
            prominence[lower] = max(0, 1 - saddle / height[lower])
    return np.where(prominence > largest, 1, prominence)


def _ridges(heatmap: np.ndarray, peaks: np.ndarray, lowest: np.float32) -> tuple[Voxels, list[tuple[int, int]]]:
    """Voxels from `lowest` on whose component holds two peaks or more; these peaks, each with its voxel's position."""
    voxels = Voxels.of(heatmap >= lowest)
    at = np.ravel_multi_index(tuple(voxels.coordinates.T), heatmap.shape)
    component = voxels.components(3**voxels.dim - 1)
    at_peak = np.ravel_multi_index(tuple(peaks.T), heatmap.shape)
    of_peak = component[np.searchsorted(at, at_peak)]
    crowded = np.bincount(of_peak, minlength=component.max() + 1) > 1
    kept, shared = crowded[component], np.flatnonzero(crowded[of_peak])
    positions = np.searchsorted(at[kept], at_peak[shared])
    return Voxels(voxels.coordinates[kept]), list(zip(shared.tolist(), positions.tolist(), strict=True))


def _basins(voxels: Voxels, value: np.ndarray) -> np.ndarray:
    """(N,) position of the voxel in which the steepest way up from each voxel ends."""
    # A rank without ties, so that every way up ends.
    rank = np.empty(len(value), np.int64)
    rank[np.argsort(-value, kind="stable")] = np.arange(len(value))
    uphill, best = np.arange(len(value)), rank.copy()
    for one, other in voxels.neighbors(3**voxels.dim - 1):
        for here, there in ((one, other), (other, one)):
            better = rank[there] < best[here]
            uphill[here[better]], best[here[better]] = there[better], rank[there[better]]
    while not np.array_equal(further := uphill[uphill], uphill):
        uphill = further
    return uphill


def _passes(voxels: Voxels, value: np.ndarray, basin: np.ndarray) -> Iterator[tuple[int, int, np.float32]]:
    """The highest pass between each two basins that touch, the highest first: both basins and its height."""
    one, other = voxels.contacts(basin, 3**voxels.dim - 1)
    saddle = np.minimum(value[one], value[other])
    one, other = basin[one], basin[other]
    one, other = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((other, one, -saddle))
    _, first = np.unique((one * len(voxels) + other)[order], return_index=True)
    order = order[np.sort(first)]
    yield from zip(one[order].tolist(), other[order].tolist(), saddle[order], strict=True)
