"""Tissues and ventricles of a real brain, and its deformation, on brains drawn by hand."""

import numpy as np
import pytest
from open_ms.anatomy import classify, deform_brain, find_ventricles, template_points
from open_ms_scenes import CENTER_MM, hand_brain

from nnunetv2_conflunet.simulation.anatomy import TISSUES, Head
from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow


def test_a_deformed_brain_is_the_brain_of_the_same_size_and_half_of_them_are_mirrored():
    brain = hand_brain()
    assert brain.ventricle_center_mm == CENTER_MM
    grid = Grid.around(CENTER_MM, (40, 44, 56), (1.0, 1.0, 1.0))
    on_right = []
    for seed in range(12):
        anatomy, occurrence = deform_brain(brain, grid, np.random.default_rng(seed))
        assert occurrence.shape == (2, *grid.shape)
        bright = np.argwhere(anatomy.signal > 1.3)
        # A cube of 512 mm3, stretched by a few percent and by the deformation.
        assert 250 < len(bright) < 900
        on_right.append(bright[:, 2].mean() > grid.shape[2] / 2)
        fluid = (anatomy.tissues["csf"] > 0.5) == (anatomy.ventricle_distance_mm < 0)
        assert fluid.mean() > 0.97
    assert 2 <= sum(on_right) <= 10


def test_ventricles_are_the_fluid_near_those_of_the_template_with_what_shines_inside():
    fluid = np.zeros((40, 40, 40), bool)
    fluid[10:20, 10:30, 10:20] = True
    fluid[14:16, 18:22, 14:16] = False  # choroid plexus
    fluid[30:32, 30:32, 30:32] = True  # 8 mm3: too small
    fluid[:, 0:3] = True  # far away
    distance = np.full(fluid.shape, 50.0, np.float32)
    distance[5:, 5:] = 2.0
    expected = np.zeros(fluid.shape, bool)
    expected[10:20, 10:30, 10:20] = True
    np.testing.assert_array_equal(find_ventricles(fluid, distance), expected)
    with pytest.raises(InputError, match="No ventricles"):
        find_ventricles(fluid, distance + 100)


def test_tissues_follow_the_signal_and_the_prior():
    shape = (12, 12, 40)
    priors = {name: np.zeros(shape, np.float32) for name in TISSUES}
    priors["cortex"][:], priors["white"][:] = 0.5, 0.5
    priors["deep_gray"][..., 30:], priors["cortex"][..., 30:], priors["white"][..., 30:] = 0.9, 0.05, 0.05
    signal = np.ones(shape, np.float32)
    signal[..., 10:20] = 1.15
    signal[..., 20:30] = 0.1
    none = np.zeros(signal.shape, bool)
    tissues = np.stack(list(classify(signal, ~none, none, priors).values()))
    np.testing.assert_allclose(tissues.sum(axis=0), 1, atol=1e-5)
    middles = tissues[:, 6, 6, [5, 15, 25, 35]]
    assert middles.argmax(axis=0).tolist() == [2, 0, 3, 1]
    assert (middles.max(axis=0) > 0.8).all()
    # Where a lesion was, there is white matter, whatever the signal and the prior say.
    assert classify(signal, ~none, ~none, priors)["white"][6, 6, 15] > 0.85


def test_the_template_is_moved_and_stretched_to_the_extent_of_the_brain():
    white = np.zeros((20, 20, 20), np.float32)
    white[5:15, 5:15, 5:15] = 1
    template = Head(Grid((20, 20, 20), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), {"white": white}, np.zeros_like(white))
    # The same cube, twice as long along x and shifted by 3 voxels along y.
    brain = np.zeros((20, 20, 40), bool)
    brain[5:15, 8:18, 10:30] = True
    points = template_points(template, brain, Grid((20, 20, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    # Standard deviations of 10 and 20 consecutive numbers: sqrt((n^2 - 1) / 12).
    stretch = (399 / 99) ** 0.5
    np.testing.assert_allclose(points[0][:, 0, 0], np.arange(20), atol=1e-5)
    np.testing.assert_allclose(points[1][0, :, 0], np.arange(20) - 3, atol=1e-5)
    np.testing.assert_allclose(points[2][0, 0], 9.5 + (np.arange(40) - 19.5) / stretch, atol=1e-5)
