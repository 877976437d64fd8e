"""Targets of the heads: coded in nnU-Net's loader, unpacked to heatmap and offsets on the device.

Heatmap and offsets have four values per voxel, codes only one. On a fast GPU, the copy from the loader's workers to the
device limits the speed of training, and so does the time to start operations: unpacking needs few of them, and none
whose result the CPU waits for.
"""

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from torch.nn.functional import pad

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.encoding import center_offset_targets, lowest_peak
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters, lesion_voxels

__all__ = ["center_offset_targets", "coded_targets", "instantiation_on_grid", "unpack_targets", "used_rows"]

# In training patches, Gaussians are cut off at this many sigmas, where they are below 0.0004.
PATCH_RADIUS_SIGMAS = 4.0

# Channels of the unpacked targets: (B, 2 + dim, X, Y[, Z]).
HEATMAP = 0
OFFSETS = slice(1, -1)
VALIDITY = -1
# Values of the last channel: neither loss applies, only the heatmap's, both.
NOTHING, HEATMAP_ONLY, HEATMAP_AND_OFFSETS = 0, 1, 2
# Codes of voxels; lesion voxels have the row of their center, counted from FIRST_ROW. Codes up to FIRST_ROW are the
# values of the last channel.
LEFT_OUT, BACKGROUND, FIRST_ROW = NOTHING, HEATMAP_ONLY, HEATMAP_AND_OFFSETS
# A patch has room for as many centers as lesions with this many voxels along each axis fit into it, and at most int16
# can count.
SMALLEST_LESION, MOST_CENTERS = 3, 2**15 - FIRST_ROW
# Voxels of the windows around centers that are computed at once; a few tens of MB.
WINDOW_VOXELS = 2**21
# Unused rows lie this many voxels outside the patch.
FAR_OUTSIDE = -1e4
# With a lower heatmap threshold, every ripple would become a center.
LOWEST_THRESHOLD = 0.05


def coded_targets(
    instances: np.ndarray,
    centers: InstanceCenters,
    ignored: np.ndarray | None,
    spacing_mm: tuple[float, ...],
    sigma_mm: float,
    most_rows: int = MOST_CENTERS,
) -> tuple[np.ndarray, np.ndarray]:
    """Compact targets of a patch with known centers; see :func:`unpack_targets`.

    Args:
        instances: (X, Y[, Z]) integer ids of the patch.
        centers: known centers in voxels of the patch, which may lie outside it. Instances without a center are
            excluded from both losses, together with the background around them where their peak may be.
        ignored: (X, Y[, Z]) bool, unlabeled voxels; or None.
        spacing_mm: voxel size in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.
        most_rows: centers of a patch at most.

    Returns:
        codes: (1, X, Y[, Z]) uint8, or int16 for more than 254 rows: ``LEFT_OUT``, ``BACKGROUND``, or ``FIRST_ROW`` + k
            for a lesion voxel whose center is in row k.
        rows: (K, dim) float32, centers in voxels, NaN in unused rows. K depends only on the patch size and `most_rows`.
            Instances for whose center there is no row are unknown.

    >>> instances = np.zeros((6, 5), int)
    >>> instances[1:4, 2] = 7
    >>> codes, rows = coded_targets(instances, InstanceCenters.of(instances), None, (1.0, 1.0), sigma_mm=2.0)
    >>> codes[0, :, 2].tolist(), rows[0].tolist()
    ([1, 2, 2, 2, 1, 1], [2.0, 2.0])
    """
    n_rows = min(max(instances.size // SMALLEST_LESION**instances.ndim, 1), most_rows)
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
    kind = np.uint8 if n_rows + FIRST_ROW <= 2**8 else np.int16
    codes = np.full((1, *instances.shape), BACKGROUND, kind)
    known = np.isin(ids, centers.ids)
    if not known.all():
        leave_out_around(codes[0], tuple(axis[~known] for axis in index), 2 * sigma_mm / np.asarray(spacing_mm, float))
    codes[0][tuple(axis[known] for axis in index)] = centers.rows_of(ids[known]) + FIRST_ROW
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


def used_rows(centers: torch.Tensor) -> torch.Tensor:
    """The rows of a batch's centers that any of its patches uses: (B, K, dim) to (B, at most K, dim).

    >>> used_rows(torch.tensor([[[1.0, 2.0], [torch.nan] * 2, [torch.nan] * 2]])).tolist()
    [[[1.0, 2.0]]]
    """
    return centers[:, : int(centers[..., 0].isfinite().sum(dim=1).max())]


def unpack_targets(
    codes: torch.Tensor, centers: torch.Tensor, spacing_mm: tuple[float, ...], sigma_mm: float
) -> torch.Tensor:
    """Heatmap, offsets in mm and validity of a batch, from the results of :func:`coded_targets` for its patches.

    Args:
        codes: (B, 1, X, Y[, Z]) uint8 or int16.
        centers: (B, K, dim) float32 positions in voxels of the patch, NaN in unused rows. Every row takes time, so use
            :func:`used_rows` before.
        spacing_mm: voxel size of the patch in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        (B, 2 + dim, X, Y[, Z]) float32 on the device of `codes`; ``HEATMAP``, ``OFFSETS`` and ``VALIDITY`` are its
        channels.

    >>> codes = torch.tensor([[[[1, 2, 2, 2, 1]]]], dtype=torch.uint8)
    >>> packed = unpack_targets(codes, torch.tensor([[[0.0, 2.0]]]), spacing_mm=(1.0, 3.0), sigma_mm=2.0)
    >>> packed[0, 2, 0].tolist()  # the second component of the offsets, in mm
    [0.0, 3.0, 0.0, -3.0, 0.0]
    """
    shape = codes.shape[2:]
    grid = _Grid.of(tuple(shape), tuple(spacing_mm), sigma_mm, codes.device)
    packed = torch.empty((len(codes), 2 + len(shape), *shape), dtype=torch.float32, device=codes.device)
    packed[:, VALIDITY] = codes[:, 0].clamp(max=FIRST_ROW)
    centers = centers.nan_to_num(FAR_OUTSIDE)
    _draw_heatmaps(packed, centers, grid)
    # Rows before the first one are of voxels outside lesions.
    rows_mm = pad(centers * grid.spacing_mm, (0, 0, FIRST_ROW, 0)).transpose(1, 2)
    row = codes.reshape(len(codes), 1, -1).long().expand(-1, len(shape), -1)
    offsets_mm = rows_mm.gather(2, row).view(len(codes), len(shape), *shape)
    for axis, position_mm in enumerate(grid.positions_mm):
        offsets_mm[:, axis].sub_(position_mm)
    packed[:, OFFSETS] = offsets_mm.masked_fill_(codes < FIRST_ROW, 0)
    return packed


class _Grid(NamedTuple):
    """What does not change from patch to patch: tensors on the device.

    Attributes:
        spacing_mm: (dim,).
        positions_mm: of the voxels along each axis, shaped to be added to (B, X, Y[, Z]).
        width: voxels of a Gaussian's window along each axis, wide enough on both sides for a center between voxels.
        steps: (W,) 0, 1, ..., W the largest width.
        reach: (dim,) voxels of the window before the voxel of the center.
        last: (dim,) first voxel of the last window that lies within the patch.
        radius: (dim,) where a Gaussian is cut off, in voxels.
        scale: (dim,) voxel size in sigmas.
    """

    spacing_mm: torch.Tensor
    positions_mm: tuple[torch.Tensor, ...]
    width: tuple[int, ...]
    steps: torch.Tensor
    reach: torch.Tensor
    last: torch.Tensor
    radius: torch.Tensor
    scale: torch.Tensor

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, shape: tuple[int, ...], spacing_mm: tuple[float, ...], sigma_mm: float, device: torch.device):
        radius = [PATCH_RADIUS_SIGMAS * sigma_mm / mm for mm in spacing_mm]
        width = tuple(min(2 * math.ceil(r) + 1, n) for r, n in zip(radius, shape, strict=True))

        def per_axis(values) -> torch.Tensor:
            return torch.tensor(list(values), dtype=torch.float32, device=device)

        positions_mm = tuple(
            torch.arange(n, device=device).view(-1, *[1] * (len(shape) - 1 - axis)) * mm
            for axis, (n, mm) in enumerate(zip(shape, spacing_mm, strict=True))
        )
        return cls(
            spacing_mm=per_axis(spacing_mm),
            positions_mm=positions_mm,
            width=width,
            steps=torch.arange(max(width), device=device),
            reach=per_axis(map(math.ceil, radius)),
            last=per_axis(n - w for n, w in zip(shape, width, strict=True)),
            radius=per_axis(radius),
            scale=per_axis(mm / sigma_mm for mm in spacing_mm),
        )


def _draw_heatmaps(packed: torch.Tensor, centers: torch.Tensor, grid: _Grid) -> None:
    """Set channel ``HEATMAP`` in place: at each voxel, the maximum of the Gaussians around the centers of its patch."""
    packed[:, HEATMAP].zero_()
    # Windows lie within the patch, even for centers outside.
    first = torch.minimum((centers.round() - grid.reach).clamp(min=0), grid.last)
    voxel = first[..., None] + grid.steps
    distance = (voxel - centers[..., None]).abs()
    gaussian = torch.exp(-0.5 * (distance * grid.scale[:, None]).square()) * (distance <= grid.radius[:, None])
    start = torch.arange(len(packed), device=packed.device).view(-1, 1) * packed.stride(0)
    voxel = voxel.long()
    some = max(WINDOW_VOXELS // math.prod(grid.width), 1)
    for begin in range(0, centers.shape[1], some):
        rows = slice(begin, begin + some)
        value, index = gaussian.new_ones(()), start
        for axis, width in enumerate(grid.width):
            along = (*voxel[:, rows].shape[:2], *[1] * axis, width)
            value = value[..., None] * gaussian[:, rows, axis, :width].reshape(along)
            index = index[..., None] + (voxel[:, rows, axis, :width] * packed.stride(2 + axis)).reshape(along)
        packed.view(-1).scatter_reduce_(0, index.flatten(), value.flatten(), "amax")


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
