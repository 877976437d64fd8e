"""Targets of the heads: coded in nnU-Net's loader, unpacked to heatmap and offsets on the device.

Heatmap and offsets have four values per voxel, codes only one. On a fast GPU, the copy from the loader's workers to the
device limits the speed of training.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import maximum_filter

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.encoding import center_offset_targets, lowest_peak
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters, lesion_voxels

__all__ = ["center_offset_targets", "coded_targets", "instantiation_on_grid", "unpack_targets"]

# In training patches, Gaussians are cut off at this many sigmas, where they are below 0.0004.
PATCH_RADIUS_SIGMAS = 4.0

# Channels of the unpacked targets: (B, 2 + dim, X, Y[, Z]).
HEATMAP = 0
OFFSETS = slice(1, -1)
VALIDITY = -1
# Values of the last channel: neither loss applies, only the heatmap's, both.
NOTHING, HEATMAP_ONLY, HEATMAP_AND_OFFSETS = 0, 1, 2
# Codes of voxels; lesion voxels have the row of their center, counted from 1.
BACKGROUND, LEFT_OUT = 0, -1
# A patch has room for as many centers as lesions with this many voxels along each axis fit into it, and at most int16.
SMALLEST_LESION, MOST_CENTERS = 3, 2**15 - 1
# Voxels of the windows around centers that are computed at once; a few tens of MB.
WINDOW_VOXELS = 2**21
# With a lower heatmap threshold, every ripple would become a center.
LOWEST_THRESHOLD = 0.05


def coded_targets(
    instances: np.ndarray,
    centers: InstanceCenters,
    ignored: np.ndarray | None,
    spacing_mm: tuple[float, ...],
    sigma_mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Compact targets of a patch with known centers; see :func:`unpack_targets`.

    Args:
        instances: (X, Y[, Z]) integer ids of the patch.
        centers: known centers in voxels of the patch, which may lie outside it. Instances without a center are
            excluded from both losses, together with the background around them where their peak may be.
        ignored: (X, Y[, Z]) bool, unlabeled voxels; or None.
        spacing_mm: voxel size in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        codes: (1, X, Y[, Z]) int16: ``BACKGROUND``, ``LEFT_OUT``, or k + 1 for a lesion voxel whose center is in row k.
        rows: (K, dim) float32, centers in voxels, NaN in unused rows. K depends only on the patch size. Instances for
            whose center there is no row are unknown.

    >>> instances = np.zeros((6, 5), int)
    >>> instances[1:4, 2] = 7
    >>> codes, rows = coded_targets(instances, InstanceCenters.of(instances), None, (1.0, 1.0), sigma_mm=2.0)
    >>> codes[0, :, 2].tolist(), rows[0].tolist()
    ([0, 1, 1, 1, 0, 0], [2.0, 2.0])
    """
    n_rows = min(max(instances.size // SMALLEST_LESION**instances.ndim, 1), MOST_CENTERS)
    index, ids = lesion_voxels(instances)
    # Centers of instances in the patch first, in case there is not enough room for those outside.
    inside = np.isin(centers.ids, ids)
    reach = PATCH_RADIUS_SIGMAS * sigma_mm / np.asarray(spacing_mm, float)
    near = ((centers.voxels >= -reach) & (centers.voxels <= np.array(instances.shape) - 1 + reach)).all(axis=1)
    first = np.argsort(~inside, kind="stable")
    first = first[(inside | near)[first]][:n_rows]
    centers = InstanceCenters(centers.ids[first], centers.voxels[first])
    rows = np.full((n_rows, instances.ndim), np.nan, np.float32)
    rows[: len(centers.ids)] = centers.voxels
    codes = np.full((1, *instances.shape), BACKGROUND, np.int16)
    known = np.isin(ids, centers.ids)
    if not known.all():
        leave_out_around(codes[0], tuple(axis[~known] for axis in index), 2 * sigma_mm / np.asarray(spacing_mm, float))
    codes[0][tuple(axis[known] for axis in index)] = centers.rows_of(ids[known]) + 1
    if ignored is not None:
        codes[0][ignored] = LEFT_OUT
    return codes, rows


def leave_out_around(codes: np.ndarray, index: tuple[np.ndarray, ...], radius: np.ndarray) -> None:
    """Set the voxels at `index`, and those within `radius` voxels along every axis, to ``LEFT_OUT`` in place."""
    margin = np.minimum(np.ceil(radius), codes.shape).astype(int)
    low = [max(axis.min() - m, 0) for axis, m in zip(index, margin, strict=True)]
    high = [axis.max() + m + 1 for axis, m in zip(index, margin, strict=True)]
    window = codes[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    found = np.zeros(window.shape, np.uint8)
    found[tuple(axis - a for axis, a in zip(index, low, strict=True))] = 1
    window[maximum_filter(found, size=2 * margin + 1, mode="constant") > 0] = LEFT_OUT


def unpack_targets(
    codes: torch.Tensor, centers: torch.Tensor, spacing_mm: tuple[float, ...], sigma_mm: float
) -> torch.Tensor:
    """Heatmap, offsets in mm and validity of a batch, from the results of :func:`coded_targets` for its patches.

    Args:
        codes: (B, 1, X, Y[, Z]) int16.
        centers: (B, K, dim) float32 positions in voxels of the patch, NaN in unused rows.
        spacing_mm: voxel size of the patch in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        (B, 2 + dim, X, Y[, Z]) float32 on the device of `codes`; ``HEATMAP``, ``OFFSETS`` and ``VALIDITY`` are its
        channels.

    >>> codes = torch.tensor([[[[0, 1, 1, 1, 0]]]], dtype=torch.int16)
    >>> packed = unpack_targets(codes, torch.tensor([[[0.0, 2.0]]]), spacing_mm=(1.0, 3.0), sigma_mm=2.0)
    >>> packed[0, 2, 0].tolist()  # the second component of the offsets, in mm
    [0.0, 3.0, 0.0, -3.0, 0.0]
    """
    shape = codes.shape[2:]
    spacing = torch.tensor(spacing_mm, dtype=torch.float32, device=codes.device)
    packed = torch.empty((len(codes), 2 + len(shape), *shape), dtype=torch.float32, device=codes.device)
    code = codes[:, 0].long()
    packed[:, VALIDITY] = torch.where(
        code > 0, HEATMAP_AND_OFFSETS, torch.where(code == LEFT_OUT, NOTHING, HEATMAP_ONLY)
    )
    packed[:, HEATMAP] = _heatmaps(centers, shape, spacing_mm, sigma_mm)
    row = (code - 1).clamp(min=0)
    batch = torch.arange(len(codes), device=codes.device).view(-1, *[1] * len(shape))
    for axis, n in enumerate(shape):
        position = torch.arange(n, device=codes.device).view(-1, *[1] * (len(shape) - 1 - axis))
        offset_mm = (centers[batch, row, axis] - position) * spacing[axis]
        packed[:, OFFSETS][:, axis] = torch.where(code > 0, offset_mm, 0)
    return packed


def _heatmaps(centers: torch.Tensor, shape: torch.Size, spacing_mm: tuple[float, ...], sigma_mm: float) -> torch.Tensor:
    """(B, X, Y[, Z]): at each voxel, the maximum of the Gaussians around the centers."""
    heatmaps = torch.zeros((len(centers), *shape), device=centers.device)
    radius = [PATCH_RADIUS_SIGMAS * sigma_mm / mm for mm in spacing_mm]
    # Wide enough on both sides for a center between voxels.
    width = [min(2 * math.ceil(r) + 1, n) for r, n in zip(radius, shape, strict=True)]
    for some in centers.isfinite().all(dim=2).nonzero().split(max(WINDOW_VOXELS // math.prod(width), 1)):
        index, value = some[:, 0] * heatmaps.stride(0), torch.ones((), device=centers.device)
        for axis, n in enumerate(shape):
            position = centers[some[:, 0], some[:, 1], axis, None]
            # Windows lie within the patch, even for centers outside.
            first = (position.round().long() - math.ceil(radius[axis])).clamp(0, n - width[axis])
            voxel = first + torch.arange(width[axis], device=centers.device)
            distance = (voxel - position).abs()
            gaussian = torch.exp(-0.5 * (distance * (spacing_mm[axis] / sigma_mm)).square())
            gaussian = torch.where(distance <= radius[axis], gaussian, 0)
            along = [len(some), *[1] * axis, width[axis]]
            index = index[..., None] + (voxel * heatmaps.stride(axis + 1)).view(along)
            value = value[..., None] * gaussian.view(along)
        heatmaps.view(-1).scatter_reduce_(0, index.flatten(), value.flatten(), "amax")
    return heatmaps


def instantiation_on_grid(
    settings: InstantiationSettings, spacing_mm: tuple[float, ...], sigma_mm: float
) -> InstantiationSettings:
    """A trainer's instantiation with a threshold of at most half of the lowest peak that targets can have.

    On coarse grids, the target of a center between voxels has a lower peak.

    >>> settings = InstantiationSettings(heatmap_threshold=0.3)
    >>> instantiation_on_grid(settings, spacing_mm=(6.0, 1.0, 1.0), sigma_mm=2.0).heatmap_threshold
    0.152
    """
    half = max(round(lowest_peak(spacing_mm, sigma_mm) / 2, 3), LOWEST_THRESHOLD)
    return replace(settings, heatmap_threshold=min(settings.heatmap_threshold, half))
