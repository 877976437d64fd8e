"""What the center and offset heads learn: a heatmap of instance centers, and vectors to them in mm."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, maximum_filter

# A Gaussian is drawn out to this many sigmas, where it is below float32's resolution of 1.
HEATMAP_RADIUS_SIGMAS = 6.0
# In patches for training it ends where it is below 0.0004.
PATCH_RADIUS_SIGMAS = 4.0

# Channels of what the loss compares the heads with: (B, 2 + dim, X, Y[, Z]), see :mod:`.unpacking`.
HEATMAP = 0
OFFSETS = slice(1, -1)
VALIDITY = -1
# Values of its last channel: no loss of the heads here, the heatmap's only, both.
NOTHING, HEATMAP_ONLY, HEATMAP_AND_OFFSETS = 0, 1, 2
# Codes of the voxels that the data loader hands over; above these stand the rows of the centers, from 1 on.
BACKGROUND, UNKNOWN = 0, -1
# A patch may hold as many centers as lesions of this many voxels along each axis fit into it, and no more than int16.
SMALLEST_LESION, MOST_CENTERS = 3, 2**15 - 1


@dataclass(frozen=True)
class InstanceCenters:
    """Where instances have their center of mass.

    Attributes:
        ids: (N,) positive ids.
        voxels: (N, dim) float64 positions in voxels of the array they belong to; may lie outside it.
    """

    ids: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, instances: np.ndarray) -> "InstanceCenters":
        """Centers of mass of the instances in an array of ids, (X, Y[, Z]) integers, background 0 or below."""
        index, ids = lesion_voxels(instances)
        present, member, counts = np.unique(ids, return_inverse=True, return_counts=True)
        sums = np.stack([np.bincount(member, weights=axis, minlength=len(present)) for axis in index], axis=1)
        return cls(present, sums / counts[:, None])

    def without_cut(self, instances: np.ndarray, ignored: np.ndarray | None = None) -> "InstanceCenters":
        """Only the instances that touch neither the border of the array nor `ignored`, and so are known to be whole.

        Args:
            instances: the array of ids.
            ignored: bool of the same shape, voxels that nobody labelled; or None.
        """
        cut = [np.take(instances, (0, -1), axis=axis).ravel() for axis in range(instances.ndim)]
        if ignored is not None and ignored.any():
            cut.append(instances[binary_dilation(ignored)])
        whole = ~np.isin(self.ids, np.concatenate(cut))
        return InstanceCenters(self.ids[whole], self.voxels[whole])

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Positions in `ids` of the given ones, which must be there; (M,) to (M,)."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, ids, sorter=order)]


def lesion_voxels(instances: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Index and int64 id of every voxel above 0, in C order.

    One pass over the array; the rest costs lesion voxels only.
    """
    instances = np.ascontiguousarray(instances)
    flat = np.flatnonzero(instances.ravel() > 0)
    return np.unravel_index(flat, instances.shape), instances.ravel()[flat].astype(np.int64)


def center_offset_targets(
    instances: np.ndarray, spacing_mm: tuple[float, ...], sigma_mm: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of ConfLUNet's center and offset heads (Wynen et al., ISBI 2024; Panoptic-DeepLab in 3D).

    The heatmap is a Gaussian of height 1 at each instance's center of mass, the maximum where several overlap. The
    offset of a voxel is its instance's center of mass minus its own position.

    Args:
        instances: (X, Y[, Z]) integer ids, background 0. Not changed.
        spacing_mm: voxel size in mm along each array axis.
        sigma_mm: standard deviation of the Gaussians in mm.

    Returns:
        The heatmap, (X, Y[, Z]) float32 in [0, 1], and the offsets in mm, (dim, X, Y[, Z]) float32, component i along
        axis i, 0 in the background.

    Raises:
        ValueError: instances are not integers, spacing_mm does not have one positive number an axis, or sigma_mm is
            not positive.
    """
    instances = np.asarray(instances)
    if instances.dtype.kind not in "biu":
        raise ValueError(f"instances must be integers, got {instances.dtype}.")
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (instances.ndim,) or not (spacing > 0).all():
        raise ValueError(f"spacing_mm must be {instances.ndim} positive numbers, got {spacing_mm}.")
    if not sigma_mm > 0:
        raise ValueError(f"sigma_mm must be positive, got {sigma_mm}.")
    centers = InstanceCenters.of(instances)
    heatmap = np.zeros(instances.shape, np.float32)
    offsets_mm = np.zeros((instances.ndim, *instances.shape), np.float32)
    draw_heatmap(heatmap, centers.voxels, spacing, sigma_mm)
    draw_offsets(offsets_mm, *lesion_voxels(instances), centers, spacing)
    return heatmap, offsets_mm


def lowest_peak(spacing_mm: tuple[float, ...], sigma_mm: float) -> float:
    """The highest value on the grid of a Gaussian whose center is as far from all voxels as it can be."""
    return float(np.exp(-((np.asarray(spacing_mm, float) / 2) ** 2).sum() / (2 * sigma_mm**2)))


def coded_targets(
    instances: np.ndarray,
    centers: InstanceCenters,
    ignored: np.ndarray | None,
    spacing_mm: tuple[float, ...],
    sigma_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of a patch whose instances' centers are known from elsewhere, in the few bytes that a data loader can
    hand over fast; :func:`.unpacking.unpack_targets` makes heatmap and offsets of them.

    Args:
        instances: (X, Y[, Z]) integer ids of the patch.
        centers: known centers in voxels of the patch, which may lie outside it. Instances without one are left out
            of both losses, together with the background around them where their peak may be.
        ignored: (X, Y[, Z]) bool, voxels that nobody labelled; or None.
        spacing_mm: voxel size in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        codes: (1, X, Y[, Z]) int16: ``BACKGROUND``, ``UNKNOWN``, or k + 1 for a lesion voxel of the center in row k.
        rows: (K, dim) float32 the centers in voxels, NaN beyond the last one. K depends on the patch's size
            only. Instances of further centers count as unknown.

    >>> instances = np.zeros((6, 5), int)
    >>> instances[1:4, 2] = 7
    >>> codes, rows = coded_targets(instances, InstanceCenters.of(instances), None, (1.0, 1.0), sigma_mm=2.0)
    >>> codes[0, :, 2].tolist(), rows[0].tolist()
    ([0, 1, 1, 1, 0, 0], [2.0, 2.0])
    """
    n_rows = min(max(instances.size // SMALLEST_LESION**instances.ndim, 1), MOST_CENTERS)
    index, ids = lesion_voxels(instances)
    # Those of the patch's own instances first, should there be no room for those beside it.
    first = np.argsort(~np.isin(centers.ids, ids), kind="stable")[:n_rows]
    centers = InstanceCenters(centers.ids[first], centers.voxels[first])
    rows = np.full((n_rows, instances.ndim), np.nan, np.float32)
    rows[: len(centers.ids)] = centers.voxels
    codes = np.full((1, *instances.shape), BACKGROUND, np.int16)
    known = np.isin(ids, centers.ids)
    if not known.all():
        leave_out_around(codes[0], tuple(axis[~known] for axis in index), 2 * sigma_mm / np.asarray(spacing_mm, float))
    codes[0][tuple(axis[known] for axis in index)] = centers.rows_of(ids[known]) + 1
    if ignored is not None:
        codes[0][ignored] = UNKNOWN
    return codes, rows


def leave_out_around(codes: np.ndarray, index: tuple[np.ndarray, ...], radius: np.ndarray) -> None:
    """Set the voxels at `index`, and those within `radius` voxels of them along every axis, to ``UNKNOWN`` in place."""
    margin = np.minimum(np.ceil(radius), codes.shape).astype(int)
    low = [max(axis.min() - m, 0) for axis, m in zip(index, margin, strict=True)]
    high = [axis.max() + m + 1 for axis, m in zip(index, margin, strict=True)]
    window = codes[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    found = np.zeros(window.shape, np.uint8)
    found[tuple(axis - a for axis, a in zip(index, low, strict=True))] = 1
    window[maximum_filter(found, size=2 * margin + 1, mode="constant") > 0] = UNKNOWN


def draw_heatmap(heatmap: np.ndarray, centers_voxel: np.ndarray, spacing: np.ndarray, sigma_mm: float) -> None:
    """Raise `heatmap` in place to the Gaussians around the centers.

    The cost grows with the number of centers only.
    """
    radius = HEATMAP_RADIUS_SIGMAS * sigma_mm / spacing
    for center in centers_voxel:
        low = np.maximum(np.ceil(center - radius), 0).astype(int)
        high = np.minimum(np.floor(center + radius) + 1, heatmap.shape).astype(int)
        if (low >= high).any():
            continue
        gaussian = np.ones((), np.float32)
        for axis, (a, b) in enumerate(zip(low, high, strict=True)):
            distance_mm = (np.arange(a, b) - center[axis]) * spacing[axis]
            gaussian = np.multiply.outer(gaussian, np.exp(-0.5 * (distance_mm / sigma_mm) ** 2).astype(np.float32))
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        np.maximum(heatmap[window], gaussian, out=heatmap[window])


def draw_offsets(
    offsets_mm: np.ndarray,
    index: tuple[np.ndarray, ...],
    ids: np.ndarray,
    centers: InstanceCenters,
    spacing: np.ndarray,
) -> None:
    """Write the offsets of the lesion voxels, whose instances are all in `centers`.

    Args:
        offsets_mm: (dim, X, Y[, Z]), changed in place.
        index: of the lesion voxels, see :func:`lesion_voxels`.
        ids: of the lesion voxels.
        centers: known centers.
        spacing: (dim,) in mm.
    """
    rows = centers.rows_of(ids)
    for i, axis in enumerate(index):
        offsets_mm[(i, *index)] = (centers.voxels[rows, i] - axis) * spacing[i]
