"""The shape of components: by hand, against linear programs, and for bodies whose answer is known at any voxel size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from support import balls

from nnunetv2_conflunet.preprocessing.semantic_only.components import Components, ComponentSettings, voxels_in_hull
from nnunetv2_conflunet.utilities.errors import InputError

DEFAULT = ComponentSettings()
SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.5, 0.5, 0.5), (1.0, 0.7, 2.0)]


def measured(components, spacing_mm, h_maxima_mm=0.5):
    return Components.measure(components, spacing_mm, h_maxima_mm)


def in_hull(point, corners):
    """Whether a point is a weighted mean of the corners."""
    equal = np.vstack([corners.T, np.ones(len(corners))])
    return linprog(np.zeros(len(corners)), A_eq=equal, b_eq=np.append(point, 1)).status == 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(4, 4), (3, 3, 3), (2, 4, 3)]).flatmap(lambda shape: arrays(bool, shape)))
def test_the_hull_holds_the_voxels_that_linear_programs_find(mask):
    voxels = np.argwhere(mask)
    if len(voxels):
        assert voxels_in_hull(voxels) == sum(in_hull(point, voxels) for point in np.argwhere(np.ones_like(mask)))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(SPACINGS),
    st.tuples(*[st.floats(2.0, 7.0)] * 3),
    st.tuples(*[st.floats(0, 0.99)] * 3),
)
def test_the_image_of_an_ellipsoid_fills_its_hull_at_any_voxel_size(spacing_mm, radii_mm, shift):
    shape = [int(2 * radius / step) + 4 for radius, step in zip(radii_mm, spacing_mm, strict=True)]
    center = np.array(shape) / 2 - 0.5 + np.array(shift)
    at = (np.moveaxis(np.indices(shape), 0, -1) - center) * spacing_mm / np.array(radii_mm)
    body = (at**2).sum(axis=-1) <= 1
    if body.any():
        # Next to the hull, within a hundredth of a voxel, others may lie.
        assert measured(body.astype(int), spacing_mm).solidity[0] > 0.97


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_one_ball_looks_like_one_lesion_and_two_that_touch_do_not(spacing_mm):
    shape = tuple(int(24 / step) + 1 for step in spacing_mm)
    middle = np.array([12.0, 12.0, 6.0])
    one = balls(shape, [middle / spacing_mm], 4.0, spacing_mm) > 0
    two = balls(shape, [middle / spacing_mm, (middle + (0, 0, 7.5)) / spacing_mm], 4.0, spacing_mm) > 0
    assert measured(one.astype(int), spacing_mm).look_single(DEFAULT).tolist() == [True]
    assert measured(two.astype(int), spacing_mm).look_single(DEFAULT).tolist() == [False]


@pytest.mark.parametrize(
    "shape, spacing_mm, size, diameter_mm",
    [
        ((2, 3, 4), (2.0, 1.0, 0.5), 24.0, (6 * 24 / np.pi) ** (1 / 3)),
        ((1, 3, 4), (5.0, 1.0, 0.5), 6.0, 2 * (6 / np.pi) ** (1 / 2)),
        ((3, 4), (1.0, 0.5), 6.0, 2 * (6 / np.pi) ** (1 / 2)),
    ],
)
def test_size_and_diameter_are_those_of_a_ball_or_a_disk(shape, spacing_mm, size, diameter_mm):
    components = np.zeros([n + 4 if n > 1 else 1 for n in shape], int)
    components[tuple(slice(2, n + 2) if n > 1 else slice(None) for n in shape)] = 7
    found = measured(components, spacing_mm)
    assert found.ids.tolist() == [7] and found.n_voxels.tolist() == [np.prod(shape)]
    assert found.size == pytest.approx([size]) and found.diameter_mm == pytest.approx([diameter_mm])
    np.testing.assert_allclose(found.center, [[(n + 3) / 2 if n > 1 else 0 for n in shape]])
    assert found.solidity.tolist() == [1] and found.n_maxima.tolist() == [1]


def test_each_criterion_is_named_and_a_value_on_the_limit_stays():
    components = np.zeros((12, 30), int)
    components[1:6, 1:6] = 1
    # A square of 5 x 5 and one of 3 x 3, joined by a row: 25 + 2 + 9 voxels.
    components[1:6, 10:15], components[3, 15:17], components[2:5, 17:20] = 2, 2, 2
    components[8, 1:4] = components[9:11, 1] = 3
    found = measured(components, (1.0, 1.0), h_maxima_mm=0.9)
    diameter_mm, solidity = found.diameter_mm[0], found.solidity[2]
    assert solidity == 5 / 6 and found.n_maxima.tolist() == [1, 2, 1]
    faults = found.faults(ComponentSettings(diameter_mm, solidity))
    assert {name: failed.tolist() for name, failed in faults.items()} == {
        "diameter": [False, True, False],
        "solidity": [False, False, False],
        "maxima": [False, True, False],
    }
    strict = ComponentSettings(0.999 * diameter_mm, 1.001 * solidity)
    assert found.look_single(ComponentSettings(diameter_mm, solidity)).tolist() == [True, False, True]
    assert found.look_single(strict).tolist() == [False, False, False]


def test_the_fall_between_two_maxima_decides():
    # Depths along the middle row: 3 in the middle of both squares, 1 between them.
    components = np.zeros((9, 16), int)
    components[2:7, 2:7] = components[2:7, 9:14] = components[4, 7:9] = 1
    assert measured(components, (1.0, 1.0), 1.9).n_maxima.tolist() == [2]
    assert measured(components, (1.0, 1.0), 2.1).n_maxima.tolist() == [1]
    # In mm: with voxels of half the size, depths and falls are half as large.
    assert measured(components, (0.5, 0.5), 0.9).n_maxima.tolist() == [2]
    assert measured(components, (0.5, 0.5), 1.1).n_maxima.tolist() == [1]


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 6, 7), (6, 7)])
def test_no_component_is_measured_as_none(shape):
    found = measured(np.zeros(shape, np.uint16), (1.0,) * len(shape))
    assert found.look_single(DEFAULT).shape == (0,) and found.center.shape == (0, len(shape))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 3), (1, 3, 3)])
def test_a_component_that_fills_the_image_is_one(shape):
    found = measured(np.ones(shape, int), (1.0, 1.0, 1.0))
    assert found.n_maxima.tolist() == [1] and found.solidity.tolist() == [1]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_diameter_mm": 0.0}, "max_diameter_mm is 0.0"),
        ({"min_solidity": 1.0}, "min_solidity is 1.0"),
        ({"h_maxima_mm": -1.0}, "h_maxima_mm is -1.0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        ComponentSettings(**values)
