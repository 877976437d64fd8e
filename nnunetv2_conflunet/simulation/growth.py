"""Growth of one lesion from a shape into tissue, on the voxel grid and with partial volume."""

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.image_grid import Triple
from nnunetv2_conflunet.simulation.lesions import MIN_EXTENT_MM, MIN_VOLUME_MM3, Shape

FACES = ndimage.generate_binary_structure(3, 1)
# Distance between the sample points in a voxel that measure how much of it a lesion fills.
PART_MM = 0.5
# Largest fraction of a background voxel that the lesions on both sides of a gap may fill.
MAX_GAP_COVERAGE = 0.4
# A lesion that loses more than this fraction of its volume to obstacles is placed elsewhere.
MAX_CUT_SHARE = 0.15


@dataclass(frozen=True)
class Unit:
    """One lesion on the grid.

    Attributes:
        box: the part of the grid that the arrays cover, with a margin of at least a voxel around the lesion.
        member: bool, voxels of the instance: those more than half filled by the shape.
        coverage: float32 in [0, 1], fraction of each voxel filled by the shape.
        depth: float32, 0 in the middle of the lesion, 1 at its outline and outside.
    """

    box: tuple[slice, ...]
    member: np.ndarray
    coverage: np.ndarray
    depth: np.ndarray


def grow(
    shape: Shape,
    volume_mm3: float,
    center: np.ndarray,
    spacing_mm: Triple,
    free: np.ndarray,
    spill: np.ndarray,
    *,
    reluctance: np.ndarray | None = None,
    min_volume_mm3: float = MIN_VOLUME_MM3,
    min_extent_mm: float = MIN_EXTENT_MM,
) -> Unit | None:
    """Fill voxels in order of a shape's levels, from its middle outward, until the volume is reached.

    So a lesion keeps its volume when fluid or another lesion cuts into its shape, and bends along the border.

    Args:
        shape: outline of the lesion.
        volume_mm3: its volume, reached to within a voxel unless `min_extent_mm` requires more.
        center: (3,) the middle in voxels.
        spacing_mm: voxel size along each axis.
        free: (Z, Y, X) bool, voxels that it may occupy.
        spill: (Z, Y, X) bool, voxels that it may brighten by partial volume.
        reluctance: (Z, Y, X) float32, how much harder it spreads here. None: equally everywhere.
        min_volume_mm3: smallest volume on the grid.
        min_extent_mm: smallest extent on the grid along each axis.

    Returns:
        The lesion, 6-connected and at least as large as requested. None if it does not fit.

    Example:
        >>> from nnunetv2_conflunet.simulation.lesions import random_shape
        >>> shape, free = random_shape(np.random.default_rng(0)), np.ones((30, 30, 30), bool)
        >>> int(grow(shape, 200.0, np.full(3, 15.0), (1, 1, 1), free, free).member.sum())
        200
    """
    spacing = np.asarray(spacing_mm)
    reach = shape.reach_mm(volume_mm3) / spacing
    low = np.maximum(np.floor(center - reach).astype(int) - 2, 0)
    high = np.minimum(np.ceil(center + reach).astype(int) + 3, free.shape)
    if (high - low < 3).any():
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    levels = _levels(shape, volume_mm3, center, box, spacing)
    if reluctance is not None:
        levels = levels * (1 + reluctance[box])[..., None]
    # The outermost voxels stay free, so the surroundings of a lesion are always inside its box.
    inner = np.zeros(levels.shape[:3], bool)
    inner[1:-1, 1:-1, 1:-1] = True
    middle = np.where(free[box] & inner, np.median(levels, axis=-1), np.inf)
    found = _fill(middle, volume_mm3, spacing, min_volume_mm3, min_extent_mm)
    if found is None:
        return None
    member, threshold = found
    near = ndimage.binary_dilation(member, FACES, iterations=2)
    coverage = (levels < threshold).mean(axis=-1) * (near & spill[box])
    coverage = np.where(free[box], coverage, np.minimum(coverage, MAX_GAP_COVERAGE)).astype(np.float32)
    # Parts cut off by obstacles do not belong to the lesion.
    coverage[~member] = np.minimum(coverage[~member], 0.5)
    depth = np.clip(levels.mean(axis=-1) / threshold, 0, 1).astype(np.float32)
    return Unit(box, member, coverage, depth)


def _levels(
    shape: Shape, volume_mm3: float, center: np.ndarray, box: tuple[slice, ...], spacing: np.ndarray
) -> np.ndarray:
    """Levels at sample points in every voxel of the box, (Z, Y, X, points)."""
    parts = np.ceil(spacing / PART_MM - 1e-6).astype(int)
    axes = []
    for side, count, middle, mm in zip(box, parts, center, spacing, strict=True):
        inside = (np.arange(count) + 0.5) / count - 0.5
        axes.append(((np.arange(side.start, side.stop)[:, None] + inside - middle) * mm).ravel())
    offsets_mm = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    levels = shape.level(offsets_mm, volume_mm3)
    size = [side.stop - side.start for side in box]
    levels = levels.reshape(size[0], parts[0], size[1], parts[1], size[2], parts[2])
    return levels.transpose(0, 2, 4, 1, 3, 5).reshape(*size, -1)


def _fill(
    middle: np.ndarray, volume_mm3: float, spacing: np.ndarray, min_volume_mm3: float, min_extent_mm: float
) -> tuple[np.ndarray, float] | None:
    """The connected voxels with the lowest levels, and the level that bounds them."""
    order = np.sort(middle[np.isfinite(middle)])
    smallest = int(np.ceil(min_volume_mm3 / spacing.prod() - 1e-6))
    count = max(smallest, round(volume_mm3 / spacing.prod()))
    limit = max(count + 6, round(1.3 * count))
    while count <= min(limit, len(order) - 1):
        threshold = float(order[count - 1] + order[count]) / 2
        member = cc3d.largest_k(middle < threshold, k=1, connectivity=6) > 0
        size = int(member.sum())
        if size < (1 - MAX_CUT_SHARE) * count:
            return None
        if size >= smallest:
            (extent,) = ndimage.find_objects(member.view(np.uint8))
            if all((s.stop - s.start) * mm >= min_extent_mm - 1e-6 for s, mm in zip(extent, spacing, strict=True)):
                return member, threshold
        count += 1
    return None
