"""The instantiation of a trainer on the grid of a configuration."""

from dataclasses import replace

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.trainers.targets import lowest_peak

# Of the heatmap, on any grid: far below it every ripple would be a center.
LOWEST_THRESHOLD = 0.05


def instantiation_on_grid(
    settings: InstantiationSettings, spacing_mm: tuple[float, ...], sigma_mm: float
) -> InstantiationSettings:
    """A trainer's instantiation, whose threshold is at most half of the lowest peak that the targets can have.

    On a coarse grid the target of a center between voxels is lower than on a fine one.
    """
    half = max(round(lowest_peak(spacing_mm, sigma_mm) / 2, 3), LOWEST_THRESHOLD)
    return replace(settings, heatmap_threshold=min(settings.heatmap_threshold, half))
