"""Instances too small to count."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels, sizes_and_boxes
from nnunetv2_conflunet.utilities.array_checks import check_not_negative, check_spacing, flat_axes
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option

# 25 voxels of float32(0.12) mm are 3 mm: limits hold up to this share.
ROUNDING = 1e-5
REMEDY = (
    "If voxels are so small, give all lengths in micrometers: the spacing in the files, then every setting in mm is "
    "one in um"
)


@dataclass(frozen=True)
class SizeLimits:
    """What an instance must reach to count. The defaults are those of Wynen et al., ISBI 2024; 0 switches a limit off.

    Attributes:
        min_volume_mm3: lowest volume; does not act in a plane.
        min_extent_mm: lowest extent along every axis.
        min_area_mm2: lowest area in a plane; does not act in a volume.

    Raises:
        InputError: a negative limit, or one that is no number.

    Example:
        >>> SizeLimits(min_volume_mm3=20.0).describe(dim=3)
        '20 mm3 and 3 mm'
    """

    min_volume_mm3: float = option(14.0, "smallest volume of an instance in mm3 (3D images only); 0 keeps all")
    min_extent_mm: float = option(3.0, "smallest extent of an instance in mm along every axis; 0 keeps all")
    min_area_mm2: float = option(0.0, "smallest area of an instance in mm2 (2D images only); 0 keeps all")

    def __post_init__(self):
        for name in LIMITS:
            check_not_negative(getattr(self, name), name)

    def describe(self, dim: int) -> str:
        """The limits that act on images of `dim` axes, in words."""
        smallest = f"{self.min_volume_mm3:g} mm3" if dim == 3 else f"{self.min_area_mm2:g} mm2"
        return f"{smallest} and {self.min_extent_mm:g} mm"

    def reached(self, n_voxels: np.ndarray, extent_voxels: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
        """Which instances are neither too small nor too short, (K,) bool.

        Args:
            n_voxels: (K,) voxels of each instance.
            extent_voxels: (K, dim) voxels that its bounding box spans along each axis.
            spacing_mm: (dim,) voxel size.
        """
        size = n_voxels * spacing_mm.prod()
        smallest = self.min_volume_mm3 if len(spacing_mm) == 3 else self.min_area_mm2
        long = (extent_voxels * spacing_mm >= self.min_extent_mm * (1 - ROUNDING)).all(axis=1)
        return long & (size >= smallest * (1 - ROUNDING))


LIMITS = tuple(limit.name for limit in fields(SizeLimits))
PAPER_LIMITS = SizeLimits()


def limit_option(name: str) -> float:
    """The field of :class:`SizeLimits` of that name, for settings that hold the limits among others."""
    limit = SizeLimits.__dataclass_fields__[name]
    return option(limit.default, limit.metadata["help"])


def remove_small_instances(
    instances: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    min_volume_mm3: float = PAPER_LIMITS.min_volume_mm3,
    min_extent_mm: float = PAPER_LIMITS.min_extent_mm,
    min_area_mm2: float = PAPER_LIMITS.min_area_mm2,
) -> np.ndarray:
    """Remove instances below 3 mm along any axis or below 14 mm3 (Wynen et al., ISBI 2024).

    The extent of an instance along an axis is the number of voxels its bounding box spans there times the spacing.
    An instance of exactly the limit stays; limits hold up to a rounding of 1e-5 of themselves. An image of two axes, or
    of three with the first of length 1 as nnU-Net has 2D images, is a plane: there is no volume, and `min_area_mm2`
    replaces `min_volume_mm3`.

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

    Example:
        >>> instances = np.zeros((9, 9, 9), int)
        >>> instances[1:5, 1:5, 1:5], instances[7, 7, 7] = 1, 2
        >>> np.unique(remove_small_instances(instances, (1, 1, 1))).tolist()
        [0, 1]
    """
    return filter_small_instances(
        instances,
        spacing_mm,
        min_volume_mm3=min_volume_mm3,
        min_extent_mm=min_extent_mm,
        min_area_mm2=min_area_mm2,
    )[0]


def filter_small_instances(
    instances: np.ndarray, spacing_mm: Sequence[float], **limits: float
) -> tuple[np.ndarray, dict[str, float]]:
    """As :func:`remove_small_instances`, with a report of what was removed.

    Returns:
        The instances, and `n_instances_removed`, `n_voxels_removed` and `removed_mm3` (in a plane `removed_mm2`).

    Example:
        >>> filter_small_instances(np.eye(4, dtype=int), (1, 1), min_area_mm2=5)[1]
        {'n_instances_removed': 1, 'n_voxels_removed': 4, 'removed_mm2': 4.0}
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
    labels = view[tuple(voxels.coordinates.T)]
    large, report = large_enough(voxels, labels, spacing[len(flat) :], SizeLimits(**limits))
    view[tuple(voxels.coordinates[~large].T)] = 0
    return kept, report


def large_enough(
    voxels: Voxels,
    labels: np.ndarray,
    spacing_mm: np.ndarray,
    limits: SizeLimits,
    sure: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """Which voxels stay, (N,) bool, and a report of the others; see :func:`filter_small_instances`.

    Args:
        voxels: the voxels of all instances.
        labels: (N,) the instance of each.
        spacing_mm: (dim,) voxel size.
        limits: of the size filter.
        sure: (K,) bool by ascending instance, which of the large ones stay; the report then has
            `n_instances_below_confidence`, the number of those that do not.
    """
    ids, n_voxels, first, last = sizes_and_boxes(voxels.coordinates, labels)
    large = limits.reached(n_voxels, last - first + 1, spacing_mm)
    n_removed = int(n_voxels[~large].sum())
    report = {
        "n_instances_removed": int(np.count_nonzero(~large)),
        "n_voxels_removed": n_removed,
        f"removed_mm{voxels.dim}": float(n_removed * spacing_mm.prod()),
    }
    if sure is not None:
        report["n_instances_below_confidence"] = int(np.count_nonzero(large & ~sure))
        large = large & sure
    return large[np.searchsorted(ids, labels)], report


def describe_removed(report: dict, limits: SizeLimits) -> str:
    """How many instances an image has and how many the size filter removed, from the report of an instantiation."""
    acting = limits.describe(2 if "removed_mm2" in report else 3)
    return f"{report['n_instances']} instances; the size filter ({acting}) removed {report['n_instances_removed']}"


def refuse_limits(shape: Sequence[int], spacing_mm: Sequence[float], limits: SizeLimits) -> None:
    """Refuse limits that not even an instance as large as the image reaches: its spacing is in another unit.

    Args:
        shape: (X, Y, Z), (1, Y, X) or (Y, X), of the image.
        spacing_mm: voxel size along each axis.
        limits: of the size filter.

    Raises:
        InputError: it names the size of the image and what to do.
    """
    spacing = check_spacing(spacing_mm, len(shape))
    flat = len(flat_axes(len(shape), shape))
    voxels, spacing = np.asarray(shape)[flat:], spacing[flat:]
    if limits.reached(voxels.prod(keepdims=True), voxels[None], spacing).all():
        return
    size = " x ".join(f"{i:g}" for i in voxels * spacing)
    smallest = f"{limits.min_volume_mm3:g} mm3" if len(voxels) == 3 else f"{limits.min_area_mm2:g} mm2"
    raise InputError(
        f"The image is {size} mm large, and the size filter would remove every instance, as each must have "
        f"{limits.min_extent_mm:g} mm along every axis and {smallest}. {REMEDY}; or lower the limits, which 0 "
        "switches off."
    )
