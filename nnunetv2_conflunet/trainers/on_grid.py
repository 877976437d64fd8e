"""The lengths of a trainer on the grid of a configuration."""

from dataclasses import replace

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import limits_of
from nnunetv2_conflunet.postprocessing.units import refuse_limits, refuse_wide
from nnunetv2_conflunet.trainers.targets import lowest_peak
from nnunetv2_conflunet.utilities.errors import InputError

# Of the heatmap, on any grid: far below it every ripple would be a center.
LOWEST_THRESHOLD = 0.05


def spacing_mm(configuration: ConfigurationManager) -> tuple[float, ...]:
    """Voxel size along the axes of the patches; two-dimensional configurations have none across slices."""
    return tuple(configuration.spacing[-len(configuration.patch_size) :])


def instantiation_on_grid(
    settings: InstantiationSettings, spacing: tuple[float, ...], sigma_mm: float
) -> InstantiationSettings:
    """A trainer's instantiation, whose threshold is at most half of the lowest peak that the targets can have.

    On a coarse grid the target of a center between voxels is lower than on a fine one.
    """
    half = max(round(lowest_peak(spacing, sigma_mm) / 2, 3), LOWEST_THRESHOLD)
    return replace(settings, heatmap_threshold=min(settings.heatmap_threshold, half))


def refuse_other_unit(
    name: str, configuration: ConfigurationManager, settings: InstantiationSettings, sigma_mm: float
) -> None:
    """Refuse a configuration whose spacing is in another unit than the trainer's lengths.

    Raises:
        InputError: the Gaussians are wider than patches, or the size filter would remove every
            instance of an image of median size.
    """
    spacing = spacing_mm(configuration)
    shape = configuration.configuration.get("median_image_size_in_voxels", configuration.patch_size)[-len(spacing) :]
    try:
        refuse_wide(spacing, sigma_mm)
        refuse_limits([max(1, round(i)) for i in shape], spacing, **limits_of(settings))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
