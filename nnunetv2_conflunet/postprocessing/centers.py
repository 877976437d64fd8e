"""Center-offset: the peaks of the heatmap."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from nnunetv2_conflunet.postprocessing.voxels import Voxels, groups, in_scan_order, joined_by_pairs

# Above the rounding of spacings in mm, squared distances in mm2 and shares of a float32 height, far below a voxel.
ROUNDING = 1e-6
# Voxels of a window from which on passes over the image cost less than a look at each of them.
WIDE = 50_000
# Voxels that are compared with their neighbors at once: some tens of MB.
PART_VOXELS = 2**19
# Pairs of equal maxima in each other's windows, at most, that are listed: some hundred MB.
MOST_PAIRS = 10**7


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

    At least 3, because a voxel whose direct neighbor is higher is no peak however thick the slices are.

    Args:
        window_mm: full width in mm.
        spacing_mm: (dim,) voxel size.

    Returns:
        (dim,) odd integers.
    """
    half = np.floor((window_mm / spacing_mm - 1) / 2 + ROUNDING)
    return 2 * np.maximum(half, 1).astype(np.int64) + 1


def find_peaks(heatmap: np.ndarray, spacing_mm: np.ndarray, *, threshold: float, window_mm: float) -> Peaks:
    """Voxels at or above `threshold` that nothing in the window around them exceeds.

    Maxima of one value that lie in each other's windows, directly or through others, are one plateau and give one
    peak: the member nearest (mm) to the mean of their positions, the first in C order among equally near ones.

    Args:
        heatmap: (X, Y, Z) or (Y, X) float32.
        spacing_mm: (dim,) voxel size.
        threshold: lowest value of a peak.
        window_mm: full width of the window, see :func:`window_voxels`.

    >>> find_peaks(np.float32([[0.5, 0.5, 0.5, 0.0, 0.9]]), np.ones(2), threshold=0.1, window_mm=3.0).indices.tolist()
    [[0, 4], [0, 1]]
    """
    # A window that is wider than the image holds no more of it.
    half = np.minimum(window_voxels(window_mm, spacing_mm) // 2, np.array(heatmap.shape) - 1)
    maxima = _local_maxima(heatmap, np.float32(threshold), half)
    if len(maxima):
        maxima = maxima[_one_a_plateau(maxima, half, spacing_mm)]
    maxima = maxima[np.argsort(-heatmap[tuple(maxima.T)], kind="stable")]
    return Peaks(maxima, heatmap[tuple(maxima.T)])


def _local_maxima(heatmap: np.ndarray, threshold: np.float32, half: np.ndarray) -> np.ndarray:
    if (2 * half + 1).prod() > WIDE:
        return _maxima_by_passes(heatmap, threshold, half)
    shifts = np.stack(np.meshgrid(*(np.arange(-h, h + 1) for h in half), indexing="ij"), axis=-1).reshape(-1, len(half))
    # Nearest first: the direct neighbors leave few voxels for the rest of a wide window.
    shifts = shifts[np.argsort((shifts**2).sum(axis=1), kind="stable")][1:]
    direct, others = np.split(shifts, [3 ** len(half) - 1])
    at = np.flatnonzero(heatmap >= threshold)
    parts = np.array_split(at, len(at) // PART_VOXELS + 1)
    at = np.concatenate([_not_exceeded(heatmap, part, direct) for part in parts])
    if len(at) * len(others) > heatmap.size:
        # A heatmap that is constant in large parts.
        return _maxima_by_passes(heatmap, threshold, half)
    return np.stack(np.unravel_index(_not_exceeded(heatmap, at, others), heatmap.shape)).T


def _not_exceeded(heatmap: np.ndarray, at: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Those of some voxels, by their position in C order, that nothing exceeds to which one of the shifts leads."""
    flat = heatmap.reshape(-1)
    # One row an axis.
    index, value = np.stack(np.unravel_index(at, heatmap.shape)), flat[at]
    for shift in shifts:
        # A clipped position lies inside the window too.
        neighbor = np.ravel_multi_index(tuple(index + shift[:, None]), heatmap.shape, mode="clip")
        highest = flat[neighbor] <= value
        index, value = index[:, highest], value[highest]
    return np.ravel_multi_index(tuple(index), heatmap.shape)


def _maxima_by_passes(heatmap: np.ndarray, threshold: np.float32, half: np.ndarray) -> np.ndarray:
    highest = maximum_filter(heatmap, size=2 * half + 1, mode="nearest")
    return np.argwhere((heatmap >= threshold) & (heatmap == highest))


def _one_a_plateau(maxima: np.ndarray, half: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(K,) positions of the members that stand for their plateaus, ascending."""
    # In half windows, so that two maxima lie in each other's window where they are at most 1 apart in the largest norm.
    # The margin for rounding is smaller than the step to the next voxel. An axis of one voxel has no window.
    steps, within = maxima / np.maximum(half, 1), 1 + 0.1 / half.max(initial=1)
    tree = cKDTree(steps, balanced_tree=False, compact_nodes=False)
    nearest, _ = tree.query(steps, k=[2], p=np.inf, distance_upper_bound=within)
    crowded = np.flatnonzero(np.isfinite(nearest[:, 0]))
    if not len(crowded):
        return np.arange(len(maxima))
    stands = np.ones(len(maxima), bool)
    stands[crowded] = False
    position_mm = maxima * spacing_mm
    for _, plateau in groups(_plateaus(Voxels(maxima[crowded]), half, within)):
        members = crowded[plateau]
        from_mean = position_mm[members] - position_mm[members].mean(axis=0)
        squared_mm2 = (from_mean**2).sum(axis=1)
        stands[members[np.argmax(squared_mm2 <= squared_mm2.min() + ROUNDING)]] = True
    return np.flatnonzero(stands)


def _plateaus(voxels: Voxels, half: np.ndarray, within: float) -> np.ndarray:
    """(N,) number of the plateau of each voxel; the arguments are those of :func:`_one_a_plateau`."""
    full = 3**voxels.dim - 1
    touching = voxels.components(full)
    if touching.max() == 1 or (half <= 1).all():
        return touching
    # A wider window also joins maxima that do not touch: of two blocks, voxels on their surfaces.
    n_neighbors = np.zeros(len(voxels), np.int64)
    for pair in voxels.neighbors(full):
        for side in pair:
            n_neighbors += np.bincount(side, minlength=len(voxels))
    surface = np.flatnonzero(n_neighbors < full)
    if len(surface) * (2 * half + 1).prod() > MOST_PAIRS:
        return _joined_by_passes(voxels, touching, half)
    tree = cKDTree(voxels.coordinates[surface] / np.maximum(half, 1))
    pairs = touching[surface[tree.query_pairs(within, p=np.inf, output_type="ndarray")]]
    return joined_by_pairs(touching.max() + 1, *pairs.T)[touching]


def _joined_by_passes(voxels: Voxels, number: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(N,) plateaus from `number`, which is 1.. of the voxels that touch, by passes over their box.

    A round joins each number with the highest and the lowest one in its windows, which leaves at most half of those
    that are to be joined with any.
    """
    first, last = voxels.box
    inside, array = tuple((voxels.coordinates - first).T), np.zeros(last - first + 1, np.int32)
    while True:
        n, found = number.max() + 1, []
        for rank in (number, n - number):
            array[inside] = rank
            found.append(maximum_filter(array, size=2 * half + 1, mode="constant")[inside])
        pairs = np.concatenate([np.stack([number, other]) for other in (found[0], n - found[1])], axis=1)
        pairs = pairs[:, pairs[0] != pairs[1]]
        if not pairs.size:
            return number
        number = in_scan_order(joined_by_pairs(n, *pairs)[number])
