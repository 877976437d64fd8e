"""The targets of the heads, made on the device from what the loader passes: ids of voxels and centers of ids.

Heatmap and offsets of a patch have four values per voxel, its ids one. On a fast GPU, copying from the loader's workers
to the device is what limits a training.
"""

import math

import torch

from nnunetv2_conflunet.trainers.targets import (
    HEATMAP,
    HEATMAP_AND_OFFSETS,
    HEATMAP_ONLY,
    NOTHING,
    OFFSETS,
    PATCH_RADIUS_SIGMAS,
    UNKNOWN,
    VALIDITY,
)

# Voxels of the windows around centers that are computed at once: some tens of MB.
WINDOW_VOXELS = 2**21


def unpack_targets(
    codes: torch.Tensor, centers: torch.Tensor, spacing_mm: tuple[float, ...], sigma_mm: float
) -> torch.Tensor:
    """Heatmap, offsets in mm and validity of a batch from what :func:`.targets.coded_targets` gave for its patches.

    Args:
        codes: (B, 1, X, Y[, Z]) int16.
        centers: (B, K, dim) float32 positions in voxels of the patch, NaN in rows that are not used.
        spacing_mm: voxel size of the patch in mm.
        sigma_mm: standard deviation of the heatmap's Gaussians in mm.

    Returns:
        (B, 2 + dim, X, Y[, Z]) float32 on the device of `codes`, channels as in :mod:`.targets`.

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
        code > 0, HEATMAP_AND_OFFSETS, torch.where(code == UNKNOWN, NOTHING, HEATMAP_ONLY)
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
    """(B, X, Y[, Z]): the highest of the Gaussians around the centers at each voxel."""
    heatmaps = torch.zeros((len(centers), *shape), device=centers.device)
    radius = [PATCH_RADIUS_SIGMAS * sigma_mm / i for i in spacing_mm]
    # Wide enough on both sides of a center that lies between voxels.
    width = [min(2 * math.ceil(r) + 1, n) for r, n in zip(radius, shape, strict=True)]
    for some in centers.isfinite().all(dim=2).nonzero().split(max(WINDOW_VOXELS // math.prod(width), 1)):
        index, value = some[:, 0] * heatmaps.stride(0), torch.ones((), device=centers.device)
        for axis, n in enumerate(shape):
            position = centers[some[:, 0], some[:, 1], axis, None]
            # Each window lies within the patch, also that of a center outside.
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
