"""Whether lengths in mm suit a grid: a spacing in another unit is to show before the work, not in its result."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_conflunet.postprocessing.size_filter import reaches_limits
from nnunetv2_conflunet.utilities.array_checks import check_spacing, flat_axes
from nnunetv2_conflunet.utilities.errors import InputError

# Patches of nnU-Net are hardly wider than such a Gaussian.
MOST_VOXELS = 100
REMEDY = (
    "If voxels are so small, give all lengths in micrometers: the spacing in the files, then every setting in mm is "
    "one in um"
)


def refuse_wide(spacing_mm: Sequence[float], sigma_mm: float) -> None:
    """Refuse Gaussians whose standard deviation is more than :data:`MOST_VOXELS` voxels.

    Raises:
        InputError: it says how many voxels they are and what to do.
    """
    finest = float(min(spacing_mm))
    if sigma_mm > MOST_VOXELS * finest:
        raise InputError(
            f"sigma_mm is {sigma_mm:g} mm, {sigma_mm / finest:,.0f} voxels of {finest:g} mm, and no center could be "
            f"learned. {REMEDY}; or set sigma_mm and the sizes of the instantiation to what suits these lengths."
        )


def refuse_limits(shape: Sequence[int], spacing_mm: Sequence[float], **limits: float) -> None:
    """Refuse limits of the size filter that not even an instance as large as the image reaches.

    Args:
        shape: (X, Y, Z), (1, Y, X) or (Y, X), of the image.
        spacing_mm: voxel size along each axis.
        limits: those of :func:`.size_filter.remove_small_instances`.

    Raises:
        InputError: it names the size of the image and what to do.
    """
    spacing = check_spacing(spacing_mm, len(shape))
    flat = len(flat_axes(len(shape), shape))
    voxels, spacing = np.asarray(shape)[flat:], spacing[flat:]
    if reaches_limits(voxels.prod(keepdims=True), voxels[None], spacing, **limits).all():
        return
    size = " x ".join(f"{i:g}" for i in voxels * spacing)
    smallest = f"{limits['min_volume_mm3']:g} mm3" if len(voxels) == 3 else f"{limits['min_area_mm2']:g} mm2"
    raise InputError(
        f"The image is {size} mm large, and the size filter would remove every instance, as each must have "
        f"{limits['min_extent_mm']:g} mm along every axis and {smallest}. {REMEDY}; or lower the limits, which 0 "
        "switches off."
    )
