"""Instances too small to count."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels, sizes_and_boxes
from nnunetv2_conflunet.utilities.array_checks import check_not_negative, check_spacing, flat_axes
from nnunetv2_conflunet.utilities.errors import InputError

# 25 voxels of float32(0.12) mm are 3 mm: limits hold up to this share.
ROUNDING = 1e-5
LIMITS = ("min_volume_mm3", "min_extent_mm", "min_area_mm2")


def limits_of(settings: object) -> dict[str, float]:
    """The size filter's limits among settings of the instantiation or of an evaluation."""
    return {name: getattr(settings, name) for name in LIMITS}


def describe_limits(settings: object, dim: int) -> str:
    """The limits that act on images of `dim` axes, in words."""
    smallest = f"{settings.min_volume_mm3:g} mm3" if dim == 3 else f"{settings.min_area_mm2:g} mm2"
    return f"{smallest} and {settings.min_extent_mm:g} mm"


def describe_removed(report: dict, settings: object) -> str:
    """How many instances an image has and how many the size filter removed, from the account of an instantiation."""
    limits = describe_limits(settings, 2 if "removed_mm2" in report else 3)
    return f"{report['n_instances']} instances; the size filter ({limits}) removed {report['n_instances_removed']}"


def remove_small_instances(
    instances: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    min_volume_mm3: float = 14.0,
    min_extent_mm: float = 3.0,
    min_area_mm2: float = 0.0,
) -> np.ndarray:
    """Remove instances below 3 mm along any axis or below 14 mm3 (Wynen et al., ISBI 2024).

    The extent of an instance along an axis is the number of voxels its bounding box spans there times the spacing.
    An instance of exactly the limit stays; limits hold up to a rounding of 1e-5 of themselves. An image of two axes, or
    of three with the first of length 1 as nnU-Net has 2D images, is a plane: there is no volume, and
    `min_area_mm2` acts in the place of `min_volume_mm3`.

    Args:
        instances: (X, Y, Z) or (Y, X) integers, 0 is background. Each id counts as one instance.
        spacing_mm: voxel size in mm along each axis of the array.
        min_volume_mm3: lowest volume that stays, in mm3; 0 switches the limit off.
        min_extent_mm: lowest extent that stays, in mm; 0 switches the limit off.
        min_area_mm2: lowest area that stays in a plane, in mm2; 0 switches the limit off. Does not act in a volume.

    Returns:
        int32 array of the same shape; the ids that stay keep their numbers.

    Raises:
        InputError: negative ids or ids that do not fit into int32, a spacing of another length or not positive, a
            negative limit.
    """
    return filter_small_instances(
        instances,
        spacing_mm,
        min_volume_mm3=min_volume_mm3,
        min_extent_mm=min_extent_mm,
        min_area_mm2=min_area_mm2,
    )[0]


def filter_small_instances(
    instances: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    min_volume_mm3: float = 14.0,
    min_extent_mm: float = 3.0,
    min_area_mm2: float = 0.0,
) -> tuple[np.ndarray, dict[str, float]]:
    """As :func:`remove_small_instances`, with an account of what was removed.

    Returns:
        The instances, and `n_instances_removed`, `n_voxels_removed` and `removed_mm3` (in a plane `removed_mm2`).
    """
    instances = np.asarray(instances)
    if instances.ndim not in (2, 3) or not np.issubdtype(instances.dtype, np.integer):
        raise InputError(
            f"instances is {instances.dtype} of shape {instances.shape}; it must hold integers on two or three axes."
        )
    if instances.min(initial=0) < 0 or instances.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError("instances holds negative ids or ids above 2147483647; use 0 for background and ids above 0.")
    spacing = check_spacing(spacing_mm, instances.ndim)
    flat = flat_axes(instances.ndim, instances.shape)
    kept = instances.astype(np.int32)
    view = kept[0] if flat else kept
    voxels = Voxels.of(view != 0)
    at = tuple(voxels.coordinates.T)
    limits = {"min_volume_mm3": min_volume_mm3, "min_extent_mm": min_extent_mm, "min_area_mm2": min_area_mm2}
    large, report = large_enough(voxels, view[at], spacing[len(flat) :], **limits)
    view[tuple(voxels.coordinates[~large].T)] = 0
    return kept, report


def large_enough(
    voxels: Voxels, labels: np.ndarray, spacing_mm: np.ndarray, **limits: float
) -> tuple[np.ndarray, dict[str, float]]:
    """Which voxels stay, (N,) bool, and the account of the others; see :func:`filter_small_instances`.

    Args:
        voxels: the voxels of all instances.
        labels: (N,) the instance of each.
        spacing_mm: (dim,) voxel size.
        limits: the three of :func:`remove_small_instances`.
    """
    for name, value in limits.items():
        check_not_negative(value, name)
    ids, n_voxels, first, last = sizes_and_boxes(voxels.coordinates, labels)
    large = reaches_limits(n_voxels, last - first + 1, spacing_mm, **limits)
    n_removed = int(n_voxels[~large].sum())
    report = {
        "n_instances_removed": int(np.count_nonzero(~large)),
        "n_voxels_removed": n_removed,
        f"removed_mm{voxels.dim}": float(n_removed * spacing_mm.prod()),
    }
    return large[np.searchsorted(ids, labels)], report


def reaches_limits(
    n_voxels: np.ndarray,
    extent_voxels: np.ndarray,
    spacing_mm: np.ndarray,
    *,
    min_volume_mm3: float,
    min_extent_mm: float,
    min_area_mm2: float,
) -> np.ndarray:
    """Which instances are neither too small nor too short, (K,) bool; see :func:`remove_small_instances`.

    Args:
        n_voxels: (K,) voxels of each instance.
        extent_voxels: (K, dim) voxels that its bounding box spans along each axis.
        spacing_mm: (dim,) voxel size.
        min_volume_mm3: as above.
        min_extent_mm: as above.
        min_area_mm2: as above.
    """
    size = n_voxels * spacing_mm.prod()
    smallest = min_volume_mm3 if len(spacing_mm) == 3 else min_area_mm2
    long = (extent_voxels * spacing_mm >= min_extent_mm * (1 - ROUNDING)).all(axis=1)
    return long & (size >= smallest * (1 - ROUNDING))
