"""Tissues and ventricles of a real brain, and its deformation, on brains drawn by hand."""

import numpy as np
import pytest
from open_ms.filling import Texture
from open_ms.real_anatomy import (
    RealBrain,
    classify,
    deform_brain,
    find_ventricles,
    template_points,
)

from nnunetv2_conflunet.simulation.grid import Grid
from nnunetv2_conflunet.simulation.templates import Templates, push_away, signed_distance
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

SHAPE = (56, 60, 64)
ORIGIN_MM = (-12.0, -46.0, -32.0)


def hand_brain() -> RealBrain:
    """White matter with a box of ventricles in the middle and a bright cube on the right."""
    ventricles = np.zeros(SHAPE, bool)
    ventricles[20:36, 20:40, 27:38] = True
    signal = np.ones(SHAPE, np.float32)
    signal[ventricles] = 0.1
    signal[24:32, 26:34, 48:56] = 1.5
    tissues = np.zeros((4, *SHAPE), np.float32)
    tissues[2], tissues[3] = ~ventricles, ventricles
    distance = signed_distance(ventricles)
    return RealBrain(
        origin_mm=ORIGIN_MM,
        signal=signal,
        tissues=tissues,
        occurrence=np.full((2, *SHAPE), 0.1, np.float32),
        ventricle_distance_mm=distance,
        ventricle_push=push_away(distance),
        # Mean index of the box is (27.5, 29.5, 32).
        ventricle_center_mm=(15.5, -16.5, 0.0),
        texture=Texture(0.04, 0.5),
    )


def test_a_deformed_brain_is_the_brain_of_the_same_size_and_half_of_them_are_mirrored():
    brain = hand_brain()
    grid = Grid.around((15.5, -16.5, 0.0), (40, 44, 56), (1.0, 1.0, 1.0))
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
    priors = np.zeros((4, 12, 12, 40), np.float32)
    priors[0], priors[2] = 0.5, 0.5
    priors[1, ..., 30:], priors[0, ..., 30:], priors[2, ..., 30:] = 0.9, 0.05, 0.05
    signal = np.ones(priors.shape[1:], np.float32)
    signal[..., 10:20] = 1.15
    signal[..., 20:30] = 0.1
    none = np.zeros(signal.shape, bool)
    tissues = classify(signal, ~none, none, priors)
    np.testing.assert_allclose(tissues.sum(axis=0), 1, atol=1e-5)
    middles = tissues[:, 6, 6, [5, 15, 25, 35]]
    assert middles.argmax(axis=0).tolist() == [2, 0, 3, 1]
    assert (middles.max(axis=0) > 0.8).all()
    # Where a lesion was, there is white matter, whatever the signal and the prior say.
    assert classify(signal, ~none, ~none, priors)[2, 6, 6, 15] > 0.85


def test_the_template_is_moved_and_stretched_to_the_extent_of_the_brain():
    tissues = np.zeros((4, 20, 20, 20), np.float32)
    tissues[2, 5:15, 5:15, 5:15] = 1
    flat = np.zeros((20, 20, 20), np.float32)
    templates = Templates(tissues, flat, flat, (0.0, 0.0, 0.0), ((5, 5, 5), (14, 14, 14)), (9.5, 9.5, 9.5))
    # The same cube, twice as long along x and shifted by 3 voxels along y.
    brain = np.zeros((20, 20, 40), bool)
    brain[5:15, 8:18, 10:30] = True
    points = template_points(templates, brain, Grid((20, 20, 40), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    # Standard deviations of 10 and 20 consecutive numbers: sqrt((n^2 - 1) / 12).
    stretch = (399 / 99) ** 0.5
    np.testing.assert_allclose(points[0][:, 0, 0], np.arange(20), atol=1e-5)
    np.testing.assert_allclose(points[1][0, :, 0], np.arange(20) - 3, atol=1e-5)
    np.testing.assert_allclose(points[2][0, 0], 9.5 + (np.arange(40) - 19.5) / stretch, atol=1e-5)
