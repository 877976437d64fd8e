"""The targets of the heads, made on the device from what the loader hands over: ids of voxels and centers of ids.

Heatmap and offsets of a patch have four values a voxel, its ids one. What has to be copied from the loader's workers to
the device is what a training on a fast GPU has no time for.
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
    device = centers.device
    heatmaps = torch.zeros((len(centers), *shape), device=device)
    flat, stride = heatmaps.view(-1), torch.tensor(heatmaps.stride()[1:], device=device)
    spacing, size = torch.tensor(spacing_mm, dtype=torch.float32, device=device), torch.tensor(shape, device=device)
    radius = PATCH_RADIUS_SIGMAS * sigma_mm / spacing
    # Wide enough on both sides of a center that lies between voxels.
    half = [min(math.ceil(PATCH_RADIUS_SIGMAS * sigma_mm / i), n) for i, n in zip(spacing_mm, shape, strict=True)]
    steps = torch.cartesian_prod(*(torch.arange(-h, h + 1, device=device) for h in half))
    for some in centers.isfinite().all(dim=2).nonzero().split(max(WINDOW_VOXELS // len(steps), 1)):
        position = centers[some[:, 0], some[:, 1]][:, None]
        voxel = position.round().long() + steps
        distance = (voxel - position).abs()
        inside = ((voxel >= 0) & (voxel < size) & (distance <= radius)).all(dim=2)
        value = torch.exp(-0.5 * (distance * spacing / sigma_mm).square().sum(dim=2))
        index = some[:, :1] * heatmaps.stride(0) + (voxel * stride).sum(dim=2)
        # What lies outside changes nothing at the first voxel; leaving it out would have the device wait.
        flat.scatter_reduce_(0, (index * inside).flatten(), (value * inside).flatten(), "amax")
    return heatmaps
