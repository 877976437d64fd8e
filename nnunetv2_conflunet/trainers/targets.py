"""What the center and offset heads learn: a heatmap of instance centers, and vectors to them in mm."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, maximum_filter

# A Gaussian is drawn out to this many sigmas, where it is below float32's resolution of 1.
HEATMAP_RADIUS_SIGMAS = 6.0
# In patches for training it ends where it is below 0.0004.
PATCH_RADIUS_SIGMAS = 4.0

# Channels of the tensor that the data loader hands to the loss: (2 + dim, X, Y[, Z]) float16.
HEATMAP = 0
OFFSETS = slice(1, -1)
VALIDITY = -1
# Values of its last channel: no loss of the heads here, the heatmap's only, both.
NOTHING, HEATMAP_ONLY, HEATMAP_AND_OFFSETS = 0, 1, 2


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


def packed_targets(
    instances: np.ndarray,
    centers: InstanceCenters,
    ignored: np.ndarray | None,
    spacing_mm: tuple[float, ...],
    sigma_mm: float,
) -> np.ndarray:
    """Targets of a patch whose instances' centers are known from elsewhere, in one array for the data loader.

    Args:
        instances: (X, Y[, Z]) integer ids of the patch.
        centers: known centers in voxels of the patch, which may lie outside it. Instances without one are left out
            of both losses, together with the background around them where their peak may be.
        ignored: (X, Y[, Z]) bool, voxels that nobody labelled; or None.
        spacing_mm: voxel size in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        (2 + dim, X, Y[, Z]) float16: heatmap, offsets in mm, validity.
    """
    spacing = np.asarray(spacing_mm, float)
    index, ids = lesion_voxels(instances)
    packed = np.zeros((instances.ndim + 2, *instances.shape), np.float16)
    packed[VALIDITY] = HEATMAP_ONLY
    unknown = ~np.isin(ids, centers.ids)
    if unknown.any():
        leave_out_around(packed[VALIDITY], tuple(axis[unknown] for axis in index), 2 * sigma_mm / spacing)
    # NumPy computes with float16 slowly: drawn in float32, and the tails that float16 hardly holds left out.
    heatmap = np.zeros(instances.shape, np.float32)
    for window in draw_heatmap(heatmap, centers.voxels, spacing, sigma_mm, PATCH_RADIUS_SIGMAS):
        packed[HEATMAP][window] = heatmap[window]
    drawn = draw_offsets(packed[OFFSETS], index, ids, centers, spacing)
    packed[(VALIDITY, *drawn)] = HEATMAP_AND_OFFSETS
    if ignored is not None:
        packed[VALIDITY][ignored] = NOTHING
    return packed


def leave_out_around(validity: np.ndarray, index: tuple[np.ndarray, ...], radius: np.ndarray) -> None:
    """Set the voxels at `index`, and those within `radius` voxels of them along every axis, to ``NOTHING`` in place."""
    margin = np.minimum(np.ceil(radius), validity.shape).astype(int)
    low = [max(axis.min() - m, 0) for axis, m in zip(index, margin, strict=True)]
    high = [axis.max() + m + 1 for axis, m in zip(index, margin, strict=True)]
    window = validity[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    found = np.zeros(window.shape, np.uint8)
    found[tuple(axis - a for axis, a in zip(index, low, strict=True))] = 1
    window[maximum_filter(found, size=2 * margin + 1, mode="constant") > 0] = NOTHING


def draw_heatmap(
    heatmap: np.ndarray,
    centers_voxel: np.ndarray,
    spacing: np.ndarray,
    sigma_mm: float,
    radius_sigmas: float = HEATMAP_RADIUS_SIGMAS,
) -> list[tuple[slice, ...]]:
    """Raise `heatmap` in place to the Gaussians around the centers; return the windows that were changed.

    The cost grows with the number of centers only.
    """
    radius = radius_sigmas * sigma_mm / spacing
    windows = []
    for center in centers_voxel:
        low = np.maximum(np.ceil(center - radius), 0).astype(int)
        high = np.minimum(np.floor(center + radius) + 1, heatmap.shape).astype(int)
        if (low >= high).any():
            continue
        gaussian = np.ones((), np.float32)
        for axis, (a, b) in enumerate(zip(low, high, strict=True)):
            distance_mm = (np.arange(a, b) - center[axis]) * spacing[axis]
            gaussian = np.multiply.outer(gaussian, np.exp(-0.5 * (distance_mm / sigma_mm) ** 2).astype(np.float32))
        windows.append(tuple(slice(a, b) for a, b in zip(low, high, strict=True)))
        np.maximum(heatmap[windows[-1]], gaussian, out=heatmap[windows[-1]])
    return windows


def draw_offsets(
    offsets_mm: np.ndarray,
    index: tuple[np.ndarray, ...],
    ids: np.ndarray,
    centers: InstanceCenters,
    spacing: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Write the offsets of the lesion voxels whose instance is in `centers`; return the index of these voxels.

    Args:
        offsets_mm: (dim, X, Y[, Z]), changed in place.
        index: of the lesion voxels, see :func:`lesion_voxels`.
        ids: of the lesion voxels.
        centers: known centers.
        spacing: (dim,) in mm.
    """
    known = np.isin(ids, centers.ids)
    index = tuple(axis[known] for axis in index)
    order = np.argsort(centers.ids)
    rows = order[np.searchsorted(centers.ids, ids[known], sorter=order)]
    for i, axis in enumerate(index):
        offsets_mm[(i, *index)] = (centers.voxels[rows, i] - axis) * spacing[i]
    return index
