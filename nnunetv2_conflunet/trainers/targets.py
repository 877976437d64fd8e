"""Targets of a patch, coded in the few bytes that a data loader can hand over fast."""

import numpy as np
from scipy.ndimage import maximum_filter

from nnunetv2_conflunet.postprocessing.encoding import (
    InstanceCenters,
    center_offset_targets,
    lesion_voxels,
    lowest_peak,
)

__all__ = ["InstanceCenters", "center_offset_targets", "coded_targets", "lowest_peak"]

# Gaussians in patches for training are drawn out to this many sigmas, where they are below 0.0004.
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
