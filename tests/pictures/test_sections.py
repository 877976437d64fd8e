"""Planes of an image, turned as a radiologist views them."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.pictures.sections import sections_through, tilt_degrees

SHAPE, SPACING_MM = (4, 5, 6), (1.0, 2.0, 3.0)


def oriented(axes, signs, shape=SHAPE):
    """Array axis i runs along world axis axes[i] (x right, y front, z top) in the direction signs[i]."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for array_axis, (world_axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world_axis, array_axis] = sign * SPACING_MM[array_axis]
    return Geometry(shape, SPACING_MM, affine, "RAS")


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_every_orientation_is_shown_the_same_way(axes, signs):
    geometry = oriented(axes, signs)
    corners = np.array(list(product(*[(0, n - 1) for n in SHAPE])))
    x, y, z = geometry.to_world_mm(corners).T
    # The corner that is rightmost, foremost and topmost; all three planes go through it.
    first = corners[(x + y + z).argmax()]
    image = np.zeros(SHAPE)
    image[tuple(first)] = 1
    found = {section.title.split(",")[0]: section for section in sections_through(geometry, first)}
    assert list(found) == ["axial", "coronal", "sagittal"]
    for section in found.values():
        # Right and front are on the left, front and top are on the top.
        assert section.cut(image)[0, 0] == 1 and section.cut(image).sum() == 1
    assert found["axial"].letters == ("R", "L", "A", "P")
    assert found["coronal"].letters == ("R", "L", "S", "I")
    assert found["sagittal"].letters == ("A", "P", "S", "I")
    mm = dict(zip(axes, SPACING_MM, strict=True))
    n = dict(zip(axes, SHAPE, strict=True))
    assert found["axial"].pixel_mm == (mm[1], mm[0]) and found["coronal"].pixel_mm == (mm[2], mm[0])
    assert found["sagittal"].size_mm == (mm[2] * n[2], mm[1] * n[1])


def test_titles_name_the_slice_of_the_file_and_its_place():
    geometry = oriented((2, 1, 0), (1, 1, 1))
    titles = [section.title for section in sections_through(geometry, (3, 1, 2))]
    # nnU-Net reverses the axes: array axis 0 is k.
    assert titles == ["axial, k = 3, z = 3.0 mm", "coronal, j = 1, y = 2.0 mm", "sagittal, i = 2, x = 6.0 mm"]


def test_files_without_orientation_are_shown_as_stored_without_letters():
    geometry = Geometry.from_properties(SHAPE, {"spacing": SPACING_MM})
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    sections = sections_through(geometry, (1, 2, 3))
    for section, plane in zip(sections, (image[1], image[:, 2], image[:, :, 3]), strict=True):
        assert section.letters == ("", "", "", "")
        np.testing.assert_array_equal(section.cut(image), plane)
    assert [section.title for section in sections] == ["as stored, k = 1", "as stored, j = 2", "as stored, i = 3"]


def test_a_plane_is_shown_once():
    geometry = Geometry.from_properties((1, 5, 6), {"spacing": (999.0, 0.5, 0.25)})
    (section,) = sections_through(geometry, (0, 2, 3))
    assert section.title == "as stored" and section.size_mm == (2.5, 1.5)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_field_is_found_again_in_the_whole_plane(axes, signs):
    geometry = oriented(axes, signs, (12, 13, 14))
    image = np.random.default_rng(0).random(geometry.shape)
    voxel = (2, 11, 6)
    for whole, part in zip(sections_through(geometry, voxel), sections_through(geometry, voxel, 9.0), strict=True):
        left, top, width, height = whole.box_of(part)
        down, across = whole.pixel_mm
        rows = slice(round(top / down), round((top + height) / down))
        columns = slice(round(left / across), round((left + width) / across))
        np.testing.assert_array_equal(whole.cut(image)[rows, columns], part.cut(image))
        assert part.cut(image).shape == (round(9 / down), round(9 / across))
        # The voxel lies in it, though it is near the border.
        assert (
            part.rows[0] <= voxel[part.down] < part.rows[1] and part.columns[0] <= voxel[part.across] < part.columns[1]
        )


def test_a_field_is_no_larger_than_the_image_and_holds_a_voxel_at_least():
    geometry = oriented((2, 1, 0), (1, 1, 1))
    whole = [section.size_mm for section in sections_through(geometry, (0, 0, 0))]
    assert [section.size_mm for section in sections_through(geometry, (3, 4, 5), 500)] == whole
    assert {section.cut(np.zeros(SHAPE)).shape for section in sections_through(geometry, (3, 4, 5), 0.1)} == {(1, 1)}


def test_the_tilt_of_an_image():
    angle = np.deg2rad(17)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert tilt_degrees(Geometry(SHAPE, (1.0, 1.0, 1.0), affine, "RAS")) == pytest.approx(17)
    assert tilt_degrees(oriented((1, 0, 2), (1, -1, 1))) == 0


@pytest.mark.parametrize("axes", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_a_projection_is_the_union_of_all_slices(axes, signs):
    geometry = oriented(axes, signs, (7, 8, 9))
    mask = np.random.default_rng(0).random(geometry.shape) < 0.1
    for section in sections_through(geometry, (3, 4, 5), 7.0):
        slices = [replace(section, index=i).cut(mask) for i in range(geometry.shape[section.axis])]
        np.testing.assert_array_equal(section.project(np.argwhere(mask)), np.any(slices, axis=0))
