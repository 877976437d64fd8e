import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io
from support import write_nifti

from nnunetv2_conflunet.imageio import declared_labels, read_instances, read_labels, write_instances
from nnunetv2_conflunet.utilities.errors import InputError


class ArrayIO(BaseReaderWriter):
    """A reader of a user."""

    def read_images(self, image_fnames):
        return np.load(image_fnames[0])[None], {"spacing": (1, 1, 1)}

    def read_seg(self, seg_fname):
        return self.read_images([seg_fname])

    def write_seg(self, seg, output_fname, properties):
        raise NotImplementedError


def ids(n, shape):
    """A map that holds every id from 1 to n."""
    values = np.zeros(np.prod(shape), np.int32)
    values[: n + 1] = np.arange(n + 1)
    return np.random.default_rng(0).permutation(values).reshape(shape)


def _with(value):
    values = np.zeros((4, 5, 6), np.float32)
    values[1, 2, 3] = value
    return values


@pytest.mark.parametrize(
    "values, message",
    [
        (_with(-1), r"negative values \(lowest -1\)"),
        (_with(1.5), "fractional values in 1 voxels"),
        (_with(np.nan), "NaN or infinite"),
        (_with(2.0**24), "the value 16777216"),
        (np.zeros((2, 4, 5, 6), np.float32), "2 channels or time points"),
    ],
)
def test_what_is_no_instance_map_is_refused_by_name(values, message, tmp_path):
    write_nifti_any(values, tmp_path / "bad.nii.gz")
    with pytest.raises(InputError, match=message) as error:
        read_instances(tmp_path / "bad.nii.gz", SimpleITKIO())
    assert "bad.nii.gz" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_whatever_else_the_map_holds(value, tmp_path):
    values = _with(value)
    # Each of these alone has a message of its own.
    values[0, 0, :3] = -1, 1.5, 2.0**24
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(InputError, match=r"bad\.npy holds NaN or infinite values"):
        read_instances(tmp_path / "bad.npy", ArrayIO())


def test_fractional_values_are_counted_over_all_slices(tmp_path):
    values = np.zeros((4, 5, 6), np.float32)
    values[[0, 1, 3], 2, 3] = 0.5, 7.25, 1e-6
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(InputError, match="fractional values in 3 voxels"):
        read_instances(tmp_path / "bad.npy", ArrayIO())


def write_nifti_any(values, path):
    nibabel.save(nibabel.Nifti1Image(values.transpose(), np.eye(4)), path)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_an_unreadable_file_is_refused_by_name(reader, tmp_path):
    write_nifti(ids(300, (43, 41, 47)).astype(np.uint16), tmp_path / "cut.nii.gz")
    whole = (tmp_path / "cut.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.nii\.gz cannot be read: it is damaged or cut off"):
        read_instances(tmp_path / "cut.nii.gz", reader())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_instances(tmp_path / "none.nii.gz", SimpleITKIO())


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int64])
def test_signed_and_float_files_of_whole_numbers_are_read(dtype, tmp_path):
    values = ids(300, (8, 8, 8)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values.transpose(), np.eye(4), dtype=dtype), tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read_instances(tmp_path / "map.nii.gz", SimpleITKIO())[0], values)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 5, 6), (5, 6)])
def test_voxels_of_several_values_are_counted_and_refused(ending, shape, tmp_path):
    image = sitk.GetImageFromArray(np.ones((*shape, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(tmp_path / f"vector{ending}"))
    with pytest.raises(InputError, match=r"vector.* (has 3 channels|holds 3 values per voxel)"):
        read_instances(tmp_path / f"vector{ending}", SimpleITKIO())


def test_the_channels_of_a_colored_png_are_counted_and_refused(tmp_path):
    io.imsave(tmp_path / "label.png", np.ones((8, 9, 3), np.uint8), check_contrast=False)
    with pytest.raises(InputError, match=r"label\.png has 3 channels .* a label has one value per voxel"):
        read_labels(tmp_path / "label.png", NaturalImage2DIO(), (0, 1))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_complex_voxels_are_refused(ending, tmp_path):
    image = sitk.GetImageFromArray(np.ones((4, 5, 6), np.complex64))
    sitk.WriteImage(image, str(tmp_path / f"complex{ending}"))
    with pytest.raises(InputError, match=r"complex.* holds complex values"):
        read_instances(tmp_path / f"complex{ending}", SimpleITKIO())


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_single_frame_is_a_volume_and_can_be_written_again(ending, tmp_path):
    values = ids(7, (4, 5, 6)).astype(np.uint8)
    volume = sitk.GetImageFromArray(values)
    volume.SetSpacing((1.0, 2.0, 3.0))
    volume.SetOrigin((10.0, 20.0, 30.0))
    volume.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    sitk.WriteImage(sitk.JoinSeries([volume]), str(tmp_path / f"frame{ending}"))
    read, properties = read_labels(tmp_path / f"frame{ending}", SimpleITKIO(), range(8))
    write_instances(read, tmp_path / "again.nii.gz", SimpleITKIO(), properties, ".nii.gz")

    again = sitk.ReadImage(str(tmp_path / "again.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again), values)
    assert again.GetSpacing() == volume.GetSpacing()
    assert again.GetOrigin() == volume.GetOrigin()
    assert again.GetDirection() == volume.GetDirection()


def test_a_file_without_bytes_is_called_empty(tmp_path):
    (tmp_path / "label.nii.gz").touch()
    with pytest.raises(InputError, match=r"label\.nii\.gz cannot be read: it is empty"):
        read_labels(tmp_path / "label.nii.gz", SimpleITKIO(), (0, 1))


def test_what_macos_keeps_beside_a_file_is_called_so(tmp_path):
    (tmp_path / "._label.nii.gz").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    with pytest.raises(InputError, match=r"\._label\.nii\.gz is not an image .* Delete the files that begin with"):
        read_labels(tmp_path / "._label.nii.gz", SimpleITKIO(), (0, 1))


def label(path, *values):
    """A label of 4 x 5 x 6 voxels, two of each value, the others 0."""
    array = np.zeros((4, 5, 6), np.uint8)
    array.ravel()[: 2 * len(values)] = np.repeat(values, 2)
    write_nifti(array, path)
    return path


@pytest.mark.parametrize(
    "values, declared, message",
    [
        (
            (255,),
            (0, 1),
            "255 in 2 voxels; dataset.json declares 0, 1 only. If it means the label 1, replace 255 ",
        ),
        ((1, 255), (0, 1, 2), "declares 0, 1, 2 only. If it means the label 2, replace 255 with 2 in every label"),
        ((255,), (0, 1, 2), "dataset.json declares 0, 1, 2 only. Replace them with the labels they mean"),
        ((127, 255), (0, 1), "holds 127, 255 in 4 voxels; dataset.json declares 0, 1 only. Replace them"),
        ((1, 2), (0, 1), "holds 2 in 2 voxels"),
        ((1, 2), (0, 2), "holds 1 in 2 voxels; dataset.json declares 0, 2 only"),
    ],
)
def test_values_that_are_not_declared_are_named_with_the_remedy(values, declared, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        read_labels(label(tmp_path / "a.nii.gz", *values), SimpleITKIO(), declared)
    assert str(error.value).startswith(str(tmp_path / "a.nii.gz"))


@pytest.mark.parametrize("declared", [(0, 1, 3), (0, 1, 2, 3), ()])
def test_declared_values_are_read_whether_they_have_gaps_or_not_and_any_value_where_none_is_declared(
    declared, tmp_path
):
    found, _ = read_labels(label(tmp_path / "a.nii.gz", 1, 3), SimpleITKIO(), declared)
    assert found.dtype == np.int32
    assert found.ravel()[:5].tolist() == [1, 1, 3, 3, 0]


@pytest.mark.parametrize(
    "value, message", [(np.nan, "NaN or infinite"), (0.5, "fractional values in 1"), (-1, "negative values")]
)
def test_a_label_obeys_the_rules_of_a_map(value, message, tmp_path):
    np.save(tmp_path / "label.npy", _with(value))
    with pytest.raises(InputError, match=rf"label\.npy holds {message}.* a label holds"):
        read_labels(tmp_path / "label.npy", ArrayIO(), (0, 1))


def test_labels_of_regions_and_the_ignore_label_are_declared():
    assert declared_labels({"background": 0, "whole": [1, 2, 3], "core": (2, 3), "tip": 3, "ignore": 4}) == (*range(5),)


def test_labels_by_number_are_refused():
    with pytest.raises(InputError, match=r"dataset\.json has the labels .* must be an integer after its name"):
        declared_labels({"0": "background", "1": "lesion"})
