"""Centers: the local maxima of the heatmap."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nnunetv2_conflunet.postprocessing.prominence import is_prominent, relative_prominence
from nnunetv2_conflunet.postprocessing.voxels import Voxels, groups, in_scan_order

# Above the rounding of spacings in mm and of squared distances in mm2, far below a voxel.
ROUNDING = 1e-6
# Voxels of a window from which on passes over the image cost less than a look at each of them.
WIDE = 50_000


@dataclass(frozen=True, eq=False)
class Peaks:
    """Peaks, the highest first; among equally high ones in the order in which the array is read (C order).

    Attributes:
        indices: (K, dim) voxel of each peak on the heatmap's grid.
        scores: (K,) float32 value of the heatmap there.
    """

    indices: np.ndarray
    scores: np.ndarray

    def __getitem__(self, chosen: np.ndarray | slice) -> "Peaks":
        """Some of the peaks, in the same order."""
        return Peaks(self.indices[chosen], self.scores[chosen])


def window_voxels(window_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Width of the window along each axis in voxels: the largest odd number that fits into `window_mm`, at least 3.

    At least 3, because a voxel whose direct neighbour is higher is no peak however thick the slices are.

    Args:
        window_mm: full width in mm.
        spacing_mm: (dim,) voxel size.

    Returns:
        (dim,) odd integers.
    """
    half = np.floor((window_mm / spacing_mm - 1) / 2 + ROUNDING)
    return 2 * np.maximum(half, 1).astype(np.int64) + 1


def find_peaks(
    heatmap: np.ndarray,
    spacing_mm: np.ndarray,
    *,
    threshold: float,
    window_mm: float,
    min_prominence: float,
) -> Peaks:
    """Voxels at or above `threshold` that nothing in the window around them exceeds.

    Maxima of one value that lie in each other's windows, directly or through others, are one plateau and give one
    peak: the member nearest (mm) to the mean of their positions, the first in C order among equally near ones.

    Args:
        heatmap: (X, Y, Z) or (Y, X) float32.
        spacing_mm: (dim,) voxel size.
        threshold: lowest value of a peak.
        window_mm: full width of the window, see :func:`window_voxels`.
        min_prominence: in [0, 1): leave out peaks from which a path to a higher peak falls by a smaller share of their
            height, see :func:`.prominence.relative_prominence`; 0 keeps all.
    """
    # A window that is wider than the image holds no more of it.
    half = np.minimum(window_voxels(window_mm, spacing_mm) // 2, np.array(heatmap.shape) - 1)
    maxima = _local_maxima(heatmap, np.float32(threshold), half)
    if len(maxima):
        maxima = maxima[_one_a_plateau(Voxels(maxima), half, spacing_mm)]
    maxima = maxima[np.argsort(-heatmap[tuple(maxima.T)], kind="stable")]
    if min_prominence > 0:
        maxima = maxima[is_prominent(relative_prominence(heatmap, maxima, min_prominence), min_prominence)]
    return Peaks(maxima, heatmap[tuple(maxima.T)])


def _local_maxima(heatmap: np.ndarray, threshold: np.float32, half: np.ndarray) -> np.ndarray:
    if _is_wide(half):
        highest = maximum_filter(heatmap, size=2 * half + 1, mode="nearest")
        return np.argwhere((heatmap >= threshold) & (heatmap == highest))
    at = np.flatnonzero(heatmap >= threshold)
    value = heatmap.reshape(-1)[at]
    # Most voxels already have a higher neighbour on their own line.
    on_a_line = (at[1:] == at[:-1] + 1) & (at[1:] % heatmap.shape[-1] != 0)
    beaten = np.zeros(len(at), bool)
    beaten[:-1] |= on_a_line & (value[1:] > value[:-1])
    beaten[1:] |= on_a_line & (value[:-1] > value[1:])
    at, value = at[~beaten], value[~beaten]
    # One row an axis.
    left = np.stack(np.unravel_index(at, heatmap.shape))
    last = np.array(heatmap.shape)[:, None] - 1
    # Nearest first: the direct neighbours leave few voxels for the rest of a wide window.
    for shift in _window(half):
        # A clipped position lies inside the window too.
        neighbour = np.clip(left + shift[:, None], 0, last)
        highest = heatmap[tuple(neighbour)] <= value
        left, value = left[:, highest], value[highest]
    return left.T


def _is_wide(half: np.ndarray) -> bool:
    return (2 * half + 1).prod() > WIDE


def _window(half: np.ndarray) -> np.ndarray:
    shifts = np.stack(np.meshgrid(*(np.arange(-h, h + 1) for h in half), indexing="ij"), axis=-1).reshape(-1, len(half))
    return shifts[np.argsort((shifts**2).sum(axis=1), kind="stable")][1:]


def _one_a_plateau(maxima: Voxels, half: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(K,) positions of the members that stand for their plateaus, ascending."""
    plateau = _plateaus(maxima, half)
    if plateau.max() == len(plateau):
        return np.arange(len(plateau))
    position_mm = maxima.coordinates * spacing_mm
    chosen = []
    for _, members in groups(plateau):
        from_mean = position_mm[members] - position_mm[members].mean(axis=0)
        squared_mm2 = (from_mean**2).sum(axis=1)
        chosen.append(members[np.argmax(squared_mm2 <= squared_mm2.min() + ROUNDING)])
    return np.sort(chosen)


def _plateaus(maxima: Voxels, half: np.ndarray) -> np.ndarray:
    if _is_wide(half):
        return _wide_plateaus(maxima, half)
    number = np.arange(len(maxima))
    if not any(len(one) for one, _ in maxima.neighbours(number, _window(half))):
        return number + 1
    touching = maxima.components(26 if maxima.dim == 3 else 8)
    if (half <= 1).all():
        return touching
    # A wider window also joins maxima that do not touch.
    array, local = maxima.crop(touching, margin=half)
    pairs = []
    for shift in _window(half):
        other = array[tuple((local + shift).T)]
        apart = (other > 0) & (other != touching)
        pairs.append(np.unique(np.stack([touching[apart], other[apart]]), axis=1))
    first, second = np.concatenate(pairs, axis=1) - 1
    n = touching.max()
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    return connected_components(graph, directed=False)[1][touching - 1] + 1


def _wide_plateaus(maxima: Voxels, half: np.ndarray) -> np.ndarray:
    """The same by handing the highest number on from window to window."""
    number = maxima.components(26 if maxima.dim == 3 else 8)
    while True:
        array, local = maxima.crop(number)
        within = maximum_filter(array, size=2 * half + 1, mode="constant")[tuple(local.T)]
        highest = np.zeros(number.max() + 1, np.int64)
        np.maximum.at(highest, number, within)
        if np.array_equal(highest[number], number):
            return in_scan_order(number)
        number = highest[number]
