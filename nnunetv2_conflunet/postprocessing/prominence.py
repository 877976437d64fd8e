"""The relief of a heatmap: the ways up to its summits, and which peaks are centers by ridges and by their offsets."""

from collections.abc import Iterator

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from nnunetv2_conflunet.postprocessing.pieces import TIE_MM
from nnunetv2_conflunet.postprocessing.voxels import Voxels, joined_by_pairs


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
    basin = climb(voxels, value)
    # The highest peak of every basin; where basins have been joined, of all of them, under the set's name.
    highest: dict[int, int] = {}
    for peak, voxel in on_ridge:
        if highest.setdefault(int(basin[voxel]), peak) != peak:
            # A shoulder: from it the way leads only up.
            prominence[peak] = 0
    joined = DisjointSet(np.unique(basin).tolist())
    for one, other, saddle in passes(voxels, value, basin):
        tops = sorted(highest.pop(joined[i]) for i in (one, other) if joined[i] in highest)
        joined.merge(one, other)
        if tops:
            highest[joined[one]] = tops[0]
        for lower in tops[1:]:
            # The pass may be the higher: where a basin's summit is no peak, a shoulder of it stands for the basin.
            prominence[lower] = max(0, 1 - saddle / height[lower])
    return np.where(prominence > largest, 1, prominence)


def is_consistent(centers_mm: np.ndarray, offsets_mm: np.ndarray, least: float) -> np.ndarray:
    """Which centers are left when those whose own offset leads to another one are left out.

    The offset at the center of a lesion is 0. A center's consistency is the distance from where its own offset points
    to the nearest other center, in units of the distance to itself. Below 1 the rule of the paper (Wynen et al., ISBI
    2024) gives the center's own voxel to another center. Centers are judged from the last to the first, and what is
    left out no longer counts for those that follow, so that of two that point at each other the first stays.

    Args:
        centers_mm: (K, dim) positions, the most certain first.
        offsets_mm: (K, dim) offsets at these positions.
        least: lowest consistency of a center; 0 keeps all.

    Returns:
        (K,) bool.

    >>> is_consistent(np.array([[0.0, 0.0], [0.0, 10.0]]), np.array([[0.0, 0.0], [0.0, -5.1]]), 1.0)
    array([ True, False])
    """
    kept = np.ones(len(centers_mm), bool)
    if least <= 0 or len(centers_mm) < 2:
        return kept
    centers_mm, offsets_mm = np.asarray(centers_mm, np.float64), np.asarray(offsets_mm, np.float64)
    tree = cKDTree(centers_mm)
    pointed_mm = centers_mm + offsets_mm
    reach_mm = least * np.linalg.norm(offsets_mm, axis=1) - TIE_MM
    # At least two neighbors, of which one may be the center itself.
    distance_mm, neighbor = tree.query(pointed_mm, k=2)
    other = neighbor != np.arange(len(centers_mm))[:, None]
    candidates = np.flatnonzero((other & (distance_mm < reach_mm[:, None])).any(axis=1))
    for center in candidates[::-1]:
        near = np.array(tree.query_ball_point(pointed_mm[center], reach_mm[center]), np.intp)
        kept[center] = not kept[near[near != center]].any()
    return kept


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


def climb(voxels: Voxels, value: np.ndarray) -> np.ndarray:
    """Where the steepest way up from each voxel ends, over all direct neighbors: 26 in space, 8 in a plane.

    A step leads to the highest neighbor, of equally high ones to the first in C order. On level ground a way goes to
    the nearest voxel that has a higher neighbor, by the fewest steps and of these by the first neighbor in C order. A
    flat top is one summit, under its first voxel.

    Args:
        voxels: where ways may lead.
        value: (N,) height of each voxel.

    Returns:
        (N,) position of the summit that each voxel climbs to.

    >>> climb(Voxels.of(np.ones((1, 6), bool)), np.array([1.0, 1.0, 0.2, 0.3, 0.3, 0.4]))
    array([0, 0, 0, 5, 5, 5])
    """
    connectivity = 3**voxels.dim - 1
    # A rank without ties: among equally high neighbors the first.
    rank = np.empty(len(value), np.int64)
    rank[np.argsort(-value, kind="stable")] = np.arange(len(value))
    uphill, best = np.arange(len(value)), rank.copy()
    for one, other in voxels.neighbors(connectivity):
        for here, there in ((one, other), (other, one)):
            better = rank[there] < best[here]
            uphill[here[better]], best[here[better]] = there[better], rank[there[better]]
    level = np.flatnonzero(value[uphill] == value)
    uphill[level] = level
    _cross_level_ground(voxels, value, uphill, level)
    while not np.array_equal(further := uphill[uphill], uphill):
        uphill = further
    return uphill


def _cross_level_ground(voxels: Voxels, value: np.ndarray, uphill: np.ndarray, level: np.ndarray) -> None:
    """Give the voxels without a higher neighbor, at the positions `level`, their steps of :func:`climb`, in place."""
    none = np.zeros(0, np.int64)
    pairs = [(none, none)]
    for one, other in voxels.neighbors(3**voxels.dim - 1, level):
        equal = value[one] == value[other]
        pairs.append((one[equal], other[equal]))
    one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
    # Directions come in C order, so that this also sorts the neighbors of a voxel.
    order = np.argsort(one, kind="stable")
    one, other = one[order], other[order]
    leads_up = np.ones(len(value), bool)
    leads_up[level] = False
    # All voxels of a round see the voxels of the round before.
    while (nearest := leads_up[other]).any():
        here, first = np.unique(one[nearest], return_index=True)
        uphill[here], leads_up[here] = other[nearest][first], True
        left = ~leads_up[one]
        one, other = one[left], other[left]
    if len(one):
        top = joined_by_pairs(len(value), one, other)
        first = np.unique(top, return_index=True)[1]
        uphill[one] = first[top[one]]


def passes(
    voxels: Voxels, value: np.ndarray, basin: np.ndarray, some: np.ndarray | None = None
) -> Iterator[tuple[int, int, np.float32]]:
    """The highest pass between each two basins that touch, the highest first: both basins and its height.

    Args:
        voxels: where ways may lead.
        value: (N,) float32, height of each voxel.
        basin: (N,) of :func:`climb`.
        some: positions of voxels; only passes on which one of these lies. Default: all.
    """
    one, other = voxels.contacts(basin, 3**voxels.dim - 1, some)
    saddle = np.minimum(value[one], value[other])
    one, other = basin[one], basin[other]
    one, other = np.minimum(one, other), np.maximum(one, other)
    order = np.lexsort((other, one, -saddle))
    _, first = np.unique((one * len(voxels) + other)[order], return_index=True)
    order = order[np.sort(first)]
    yield from zip(one[order].tolist(), other[order].tolist(), saddle[order], strict=True)
