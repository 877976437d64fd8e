"""Encoding: instances as what the heads learn, a heatmap of their centers and vectors to these in mm."""

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters, lesion_voxels

# A Gaussian is drawn out to this many sigmas, where it is below float32's resolution of 1.
HEATMAP_RADIUS_SIGMAS = 6.0


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

    >>> heatmap, offsets_mm = center_offset_targets(np.array([[0, 4, 4, 4]]), (1.0, 2.0), sigma_mm=2.0)
    >>> [round(float(height), 2) for height in heatmap[0]]
    [0.14, 0.61, 1.0, 0.61]
    >>> offsets_mm[1].tolist()
    [[0.0, 2.0, 0.0, -2.0]]
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
    for center in centers.voxels:
        _raise_to_gaussian(heatmap, center, spacing, sigma_mm)
    offsets_mm = np.zeros((instances.ndim, *instances.shape), np.float32)
    index, ids = lesion_voxels(instances)
    to_center_mm = (centers.voxels[centers.rows_of(ids)] - np.stack(index, axis=1)) * spacing
    for component, along_axis in zip(offsets_mm, to_center_mm.T, strict=True):
        component[index] = along_axis
    return heatmap, offsets_mm


def lowest_peak(spacing_mm: tuple[float, ...], sigma_mm: float) -> float:
    """The highest value on the grid of a Gaussian whose center is as far from all voxels as it can be."""
    return float(np.exp(-((np.asarray(spacing_mm, float) / 2) ** 2).sum() / (2 * sigma_mm**2)))


def _raise_to_gaussian(heatmap: np.ndarray, center: np.ndarray, spacing: np.ndarray, sigma_mm: float) -> None:
    """Raise `heatmap` in place to the Gaussian around a center, in the box that it reaches."""
    radius = HEATMAP_RADIUS_SIGMAS * sigma_mm / spacing
    first = np.maximum(np.ceil(center - radius), 0).astype(int)
    stop = np.minimum(np.floor(center + radius) + 1, heatmap.shape).astype(int)
    gaussian = np.ones((), np.float32)
    for axis, (start, end) in enumerate(zip(first, stop, strict=True)):
        distance_mm = (np.arange(start, end) - center[axis]) * spacing[axis]
        gaussian = np.multiply.outer(gaussian, np.exp(-0.5 * (distance_mm / sigma_mm) ** 2).astype(np.float32))
    window = tuple(slice(start, end) for start, end in zip(first, stop, strict=True))
    np.maximum(heatmap[window], gaussian, out=heatmap[window])
