import itertools
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from support import write_nifti

from nnunetv2_conflunet.imageio import Geometry, refuse_other_grid
from nnunetv2_conflunet.imageio.geometry import in_file_order
from nnunetv2_conflunet.utilities.errors import InputError

READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]


def oblique_affine():
    """RAS affine of a 3 x 1 x 1 mm image tilted by 20 degrees, its first axis running to the left."""
    angle = np.deg2rad(20)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) @ np.diag(
        [-1, 1, 1]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([3.0, 1.0, 1.0])
    affine[:3, 3] = (12.5, -40.0, 7.25)
    return affine


@pytest.fixture
def oblique_file(tmp_path):
    path = tmp_path / "oblique.nii.gz"
    data = np.zeros((6, 7, 8), np.float32)
    data[4, 1, 6] = 1
    nibabel.save(nibabel.Nifti1Image(data, oblique_affine()), path)
    return path


@pytest.mark.parametrize("reader", READERS)
def test_world_position_is_the_files_own_whatever_the_reader(reader, oblique_file):
    values, properties = reader().read_seg(str(oblique_file))
    geometry = Geometry.from_properties(values.shape[1:], properties)
    voxel = np.argwhere(values[0] == 1)
    expected = oblique_affine() @ [4, 1, 6, 1]
    np.testing.assert_allclose(geometry.to_world_mm(voxel)[0], expected[:3], atol=1e-4)
    assert geometry.world == "RAS"


@pytest.mark.parametrize("reader", READERS)
def test_direction_has_unit_columns_and_the_spacing_of_the_reader(reader, oblique_file):
    values, properties = reader().read_seg(str(oblique_file))
    geometry = Geometry.from_properties(values.shape[1:], properties)
    step = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    np.testing.assert_allclose(step, geometry.spacing_mm, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(geometry.direction, axis=0), 1)


def test_two_dimensional_image(tmp_path):
    write_nifti(np.zeros((5, 6), np.uint8), tmp_path / "plane.nii.gz", (0.5, 2.0), (10, 20))
    values, properties = SimpleITKIO().read_seg(str(tmp_path / "plane.nii.gz"))
    geometry = Geometry.from_properties(values.shape[1:], properties)
    # x runs along the last array axis; LPS (11, 26) is RAS (-11, -26).
    np.testing.assert_allclose(geometry.to_world_mm([[0, 3, 2]])[0, :2], [-11, -26])


def test_without_orientation_the_world_is_index_times_spacing():
    geometry = Geometry.from_properties((4, 5, 6), {"spacing": (3, 2, 1)})
    np.testing.assert_allclose(geometry.to_world_mm([[1, 1, 1]])[0], [1, 2, 3])
    assert geometry.world == "none"


@pytest.mark.parametrize(
    "change, word",
    [
        ({"shape": (9, 8, 7)}, "size"),
        ({"spacing_mm": (1, 1, 1.1)}, "spacing"),
        ({"origin": (1, 0, 0)}, "origin"),
        ({"direction": np.diag([1, -1, 1])}, "direction"),
    ],
)
def test_differences_are_named(tmp_path, change, word):
    def geometry(name, shape=(8, 8, 8), **place):
        write_nifti(np.zeros(shape, np.uint8), tmp_path / name, **place)
        values, properties = SimpleITKIO().read_seg(str(tmp_path / name))
        return Geometry.from_properties(values.shape[1:], properties)

    reference = geometry("a.nii.gz")
    assert reference.differences(geometry("b.nii.gz")) == []
    found = geometry("c.nii.gz", **change).differences(reference)
    assert len(found) == 1 and found[0].startswith(word)


def test_rounding_of_float32_headers_is_no_difference(oblique_file, tmp_path):
    values, properties = SimpleITKIO().read_seg(str(oblique_file))
    exact = Geometry.from_properties(values.shape[1:], properties)
    stuff = properties["sitk_stuff"]
    rounded = {
        "spacing": properties["spacing"],
        "sitk_stuff": {key: np.float32(value).astype(float).round(4).tolist() for key, value in stuff.items()},
    }
    assert Geometry.from_properties(values.shape[1:], rounded).differences(exact) == []


@pytest.mark.parametrize("reader", READERS)
def test_in_file_order_an_array_is_as_the_file_keeps_it(reader, tmp_path):
    stored = np.arange(24).reshape(2, 3, 4)
    for permutation in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, permutation] * signs
            nibabel.save(nibabel.Nifti1Image(stored.astype(np.uint8), affine), tmp_path / "a.nii.gz")
            values, properties = reader().read_seg(str(tmp_path / "a.nii.gz"))
            np.testing.assert_array_equal(in_file_order(values[0], properties), stored.T)


def test_a_tiff_without_its_spacing_file_is_the_one_at_fault(tmp_path):
    files = [tmp_path / "map.tif", tmp_path / "label.tif"]
    for file in files:
        tifffile.imwrite(file, np.zeros((7, 8, 9), np.uint8))
        file.with_suffix(".json").write_text(json.dumps({"spacing": [3.0, 1.0, 1.0]}))

    def fault(reader=Tiff3DIO):
        grids = []
        for file in files:
            values, properties = reader().read_seg(str(file))
            grids.append(Geometry.from_properties(values.shape[1:], properties))
        try:
            refuse_other_grid(files[0], grids[0], files[1], grids[1], reader())
        except InputError as error:
            return str(error)
        return None

    assert fault() is None
    (tmp_path / "label.json").unlink()
    text = fault()
    assert f"{tmp_path / 'label.json'} does not exist" in text
    assert "Resample" not in text
    (tmp_path / "label.json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))
    assert "Resample map.tif to that grid" in fault()


def test_both_files_and_the_difference_are_named():
    one, other = (Geometry.from_properties((4, 5, 6), {"spacing": (mm, 1, 1)}) for mm in (1, 2))
    with pytest.raises(InputError) as error:
        refuse_other_grid(Path("a.nii.gz"), one, Path("b.nii.gz"), other, SimpleITKIO())
    assert str(error.value).startswith(
        "a.nii.gz does not lie on the grid of b.nii.gz: spacing (1.0, 1.0, 1.0) mm instead of (2.0, "
    )
