"""Shapes from the components of masks: which are taken, and what their levels are."""

import numpy as np
import pytest
from open_ms.shapes import RealShape, real_components, shape_maker
from open_ms_scenes import ball, box

from nnunetv2_conflunet.simulation.growth import grow
from nnunetv2_conflunet.utilities.errors import InputError


@pytest.mark.parametrize(
    ("lengths", "is_taken"),
    [
        ((3, 3, 3), True),
        ((3, 3, 2), False),  # 2 mm along x
        ((20, 20, 2), False),
        ((12, 12, 13), True),  # 1872 mm3
        ((13, 13, 12), False),  # 2028 mm3
    ],
)
def test_components_of_the_right_size_are_taken(lengths: tuple[int, ...], is_taken: bool):
    found = real_components(box(*lengths))
    assert [c.volume_mm3 for c in found] == ([np.prod(lengths)] if is_taken else [])


def test_thirteen_voxels_are_too_few():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:5, 4, 4] = mask[4, 2:7, 4] = mask[4, 4, 1:8] = True
    assert mask.sum() == 13
    assert real_components(mask) == []
    mask[5, 4, 4] = True
    assert [c.volume_mm3 for c in real_components(mask)] == [14.0]


def test_a_component_at_the_border_of_the_image_is_whole():
    mask = np.zeros((10, 10, 10), bool)
    mask[:4, :4, :4] = True
    (component,) = real_components(mask)
    assert component.volume_mm3 == 64
    # Radius of a cube of 4 voxels around one of the middle ones: 2 voxels along each axis.
    assert component.radius_mm == pytest.approx(12**0.5)


def test_the_long_axis_is_found():
    (component,) = real_components(box(4, 12, 6))
    np.testing.assert_allclose(np.abs(component.axes), np.eye(3)[:, [1, 2, 0]], atol=1e-6)


def along(axis: int, length: float) -> np.ndarray:
    offsets = np.zeros((1, 3), np.float32)
    offsets[0, axis] = length
    return offsets


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_the_level_of_a_ball_is_its_radius(factor: float):
    mask = ball(7)
    (component,) = real_components(mask)
    shape = RealShape((component,), 0.0, np.eye(3))
    volume = mask.sum() * factor**3
    assert shape.level(np.zeros((1, 3), np.float32), volume) == pytest.approx(0, abs=1e-6)
    for axis in range(3):
        for radius in (3.5, 7.2, 10.0):
            expected = radius / 7.2
            assert shape.level(along(axis, factor * radius), volume)[0] == pytest.approx(expected, abs=0.12)
    assert shape.reach_mm(volume) == pytest.approx(7 * factor + 1.5)


def test_the_level_goes_on_rising_beyond_the_box():
    shape = RealShape(tuple(real_components(ball(4))), 0.0, np.eye(3))
    levels = [shape.level(along(0, length), 250.0)[0] for length in (6, 9, 15, 30, 60)]
    assert (np.diff(levels) > 0.3).all()


def test_a_shape_is_turned_so_that_its_long_axis_has_the_direction():
    (component,) = real_components(box(14, 5, 5))
    turned = RealShape((component,), 0.0, np.eye(3)[:, [2, 0, 1]])
    inside, outside = (turned.level(along(axis, 6.0), 350.0)[0] for axis in (2, 0))
    assert inside < 1 < outside
    directions = [shape_maker([component])(np.random.default_rng(i), np.array([0, 3, 4])).axes[:, 0] for i in range(40)]
    assert np.mean(directions @ np.array([0, 0.6, 0.8])) > 0.85


def test_axes_are_orthonormal_and_of_either_hand():
    make_shape = shape_maker(real_components(ball(4)))
    axes = np.array([make_shape(np.random.default_rng(i)).axes for i in range(20)])
    np.testing.assert_allclose(np.einsum("nij,nik->njk", axes, axes), np.broadcast_to(np.eye(3), axes.shape), atol=1e-9)
    assert set(np.linalg.det(axes).round(6)) == {-1.0, 1.0}


def test_a_lesion_takes_its_shape_from_components_of_about_its_volume():
    small, large = real_components(box(3, 3, 3))[0], real_components(box(12, 12, 12))[0]
    shape = RealShape((small,) * 15 + (large,) * 15, 0.99, np.eye(3))
    # The reach is that of a cube: from a middle voxel to the farthest corner voxel.
    assert shape.reach_mm(27.0) == pytest.approx(3**0.5 + 1.5)
    assert shape.reach_mm(1728.0) == pytest.approx(108**0.5 + 1.5)


def test_a_round_shape_is_a_ball():
    shape = RealShape(tuple(real_components(box(14, 4, 4))), 0.0, np.eye(3), roundness=1.0)
    volume = 4 / 3 * np.pi * 5**3
    assert [shape.level(along(axis, 5.0), volume)[0] for axis in range(3)] == pytest.approx([1, 1, 1])


def test_a_bent_component_gives_a_bent_lesion():
    # An L of two legs: voxels between the legs stay free, which no ellipsoid does.
    mask = np.zeros((30, 30, 30), bool)
    mask[10:14, 4:20, 4:8] = mask[10:14, 4:8, 4:20] = True
    shape = shape_maker(real_components(mask))(np.random.default_rng(0))
    free = np.ones((60, 60, 60), bool)
    member = grow(shape, float(mask.sum()), np.full(3, 30.0), (1.0, 1.0, 1.0), free, free).member
    middle = np.argwhere(member).mean(axis=0).round().astype(int)
    assert not member[tuple(middle)]
    assert member.sum() == pytest.approx(mask.sum(), rel=0.05)


def test_no_shapes():
    with pytest.raises(InputError, match="no component"):
        shape_maker([])
