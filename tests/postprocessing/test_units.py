"""Lengths that do not suit a grid."""

import pytest

from nnunetv2_conflunet.postprocessing.units import refuse_limits, refuse_wide
from nnunetv2_conflunet.utilities.errors import InputError

LIMITS = {"min_volume_mm3": 14.0, "min_extent_mm": 3.0, "min_area_mm2": 0.0}


@pytest.mark.parametrize(
    "shape, spacing_mm, changes, size",
    [
        # A true spacing in mm of a microscope's stack.
        ((64, 512, 512), (0.001, 0.0003, 0.0003), {}, "0.064 x 0.1536 x 0.1536 mm"),
        ((2, 40, 40), (1, 1, 1), {}, "2 x 40 x 40 mm"),
        ((3, 3, 3), (1, 1, 1), {"min_volume_mm3": 27.1}, "3 x 3 x 3 mm"),
        ((1, 512, 512), (999, 0.001, 0.001), {}, "0.512 x 0.512 mm"),
        ((20, 10), (1, 1), {"min_area_mm2": 201}, "20 x 10 mm"),
    ],
)
def test_limits_that_not_even_the_whole_image_reaches_are_refused(shape, spacing_mm, changes, size):
    with pytest.raises(InputError, match=f"The image is {size} large, and .* would remove every .* micrometers"):
        refuse_limits(shape, spacing_mm, **LIMITS | changes)


@pytest.mark.parametrize(
    "shape, spacing_mm, changes",
    [
        ((64, 512, 512), (1, 0.3, 0.3), {}),
        ((3, 3, 3), (1, 1, 1), {}),
        ((1, 512, 512), (0.001, 1, 1), {}),
        ((20, 10), (1, 1), {"min_area_mm2": 200}),
        ((2, 2, 2), (0.001, 0.001, 0.001), dict.fromkeys(LIMITS, 0)),
    ],
)
def test_limits_that_an_instance_can_reach_are_not(shape, spacing_mm, changes):
    refuse_limits(shape, spacing_mm, **LIMITS | changes)


def test_gaussians_of_hundreds_of_voxels_are_refused():
    with pytest.raises(InputError, match=r"sigma_mm is 2 mm, 6,667 voxels of 0.0003 mm.* micrometers"):
        refuse_wide((0.001, 0.0003, 0.0003), 2.0)
    refuse_wide((1.0, 0.02, 0.02), 2.0)
