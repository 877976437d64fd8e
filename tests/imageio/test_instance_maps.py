import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from support import assert_whole_or_as_before, write_nifti

from nnunetv2_conflunet.imageio import read_instances, write_instances
from nnunetv2_conflunet.utilities.errors import InputError

NIFTI_READERS = [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
# Left-posterior-inferior axes, permuted, tilted: no reader finds its own orientation in it.
AFFINE = np.array([[0, 0, -2.0, 5], [-0.9397, -0.342, 0, -8], [0.342, -0.9397, 0, 3], [0, 0, 0, 1]])


def ids(n, shape=(43, 41, 47)):
    """A map that holds every id from 1 to n."""
    values = np.zeros(np.prod(shape), np.int32)
    values[: n + 1] = np.arange(n + 1)
    return np.random.default_rng(0).permutation(values).reshape(shape)


@pytest.mark.parametrize("n", [300, 70_000])
@pytest.mark.parametrize("reader", NIFTI_READERS)
def test_every_id_survives_at_its_place_in_the_world(reader, n, tmp_path):
    source = ids(n)
    nibabel.save(nibabel.Nifti1Image(source, AFFINE), tmp_path / "source.nii.gz")
    read, properties = read_instances(tmp_path / "source.nii.gz", reader())
    write_instances(read, tmp_path / "written.nii.gz", reader(), properties, ".nii.gz")

    written = nibabel.load(tmp_path / "written.nii.gz")
    np.testing.assert_allclose(written.affine, AFFINE, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(written.dataobj), source)
    assert written.get_data_dtype() == (np.uint16 if n < 65536 else np.uint32)


@pytest.mark.parametrize("n", [300, 70_000])
def test_tiff_keeps_ids_and_spacing(n, tmp_path):
    properties = {"spacing": (3.0, 1.0, 0.5)}
    write_instances(ids(n), tmp_path / "case.tif", Tiff3DIO(), properties, ".tif")
    read, read_properties = read_instances(tmp_path / "case.tif", Tiff3DIO())
    np.testing.assert_array_equal(read, ids(n))
    assert tuple(read_properties["spacing"]) == (3.0, 1.0, 0.5)


@pytest.mark.parametrize("ending, n", [(".png", 300), (".tif", 70_000), (".bmp", 255)])
def test_natural_images(ending, n, tmp_path):
    source = ids(n, (1, 300, 301))
    write_instances(source, tmp_path / f"case{ending}", NaturalImage2DIO(), {"spacing": (999, 1, 1)}, ending)
    np.testing.assert_array_equal(read_instances(tmp_path / f"case{ending}", NaturalImage2DIO())[0], source)


def test_a_format_that_cannot_hold_the_ids_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(InputError, match=r"70000 instances do not fit into \.png"):
        write_instances(ids(70_000), tmp_path / "case.png", NaturalImage2DIO(), {"spacing": (999, 1, 1)}, ".png")
    assert list(tmp_path.iterdir()) == []


class UnknownIO(BaseReaderWriter):
    """A reader/writer of a user, which casts as nnU-Net's own do."""

    dtype = np.uint16

    def read_images(self, image_fnames):
        return np.load(image_fnames[0])[None].astype(np.float32), {"spacing": (1, 1, 1)}

    def read_seg(self, seg_fname):
        return self.read_images([seg_fname])

    def write_seg(self, seg, output_fname, properties):
        np.save(output_fname, seg.astype(self.dtype))


def test_a_users_writer_is_trusted_only_as_far_as_it_keeps_the_ids(tmp_path):
    write_instances(ids(300), tmp_path / "case.npy", UnknownIO(), {"spacing": (1, 1, 1)}, ".npy")
    np.testing.assert_array_equal(read_instances(tmp_path / "case.npy", UnknownIO())[0], ids(300))
    with pytest.raises(InputError, match="UnknownIO cannot keep 70000 instance ids"):
        write_instances(ids(70_000), tmp_path / "large.npy", UnknownIO(), {"spacing": (1, 1, 1)}, ".npy")
    assert [i.name for i in tmp_path.iterdir()] == ["case.npy"]


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
        (_with(2.0**24), "the id 16777216"),
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
        read_instances(tmp_path / "bad.npy", UnknownIO())


def test_fractional_values_are_counted_over_all_slices(tmp_path):
    values = np.zeros((4, 5, 6), np.float32)
    values[[0, 1, 3], 2, 3] = 0.5, 7.25, 1e-6
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(InputError, match="fractional values in 3 voxels"):
        read_instances(tmp_path / "bad.npy", UnknownIO())


def write_nifti_any(values, path):
    nibabel.save(nibabel.Nifti1Image(values.transpose(), np.eye(4)), path)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
def test_an_unreadable_file_is_refused_by_name(reader, tmp_path):
    write_nifti(ids(300).astype(np.uint16), tmp_path / "cut.nii.gz")
    whole = (tmp_path / "cut.nii.gz").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.nii\.gz cannot be read by"):
        read_instances(tmp_path / "cut.nii.gz", reader())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_instances(tmp_path / "none.nii.gz", SimpleITKIO())


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int64])
def test_signed_and_float_files_of_whole_numbers_are_read(dtype, tmp_path):
    values = ids(300, (8, 8, 8)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values.transpose(), np.eye(4), dtype=dtype), tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(read_instances(tmp_path / "map.nii.gz", SimpleITKIO())[0], values)


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    class Failing(UnknownIO):
        def write_seg(self, seg, output_fname, properties):
            super().write_seg(seg, output_fname, properties)
            raise OSError("disk full")

    (tmp_path / "case.npy").write_bytes(b"older")
    with pytest.raises(InputError, match=r"case\.npy cannot be written whole \(disk full\)"):
        write_instances(ids(3), tmp_path / "case.npy", Failing(), {"spacing": (1, 1, 1)}, ".npy")
    assert (tmp_path / "case.npy").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


SITK = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
FULL_DISK = [
    *((SimpleITKIO, i) for i in (".nii.gz", ".nrrd", ".mha", ".gipl")),
    (SimpleITKIOWithReorient, ".nii.gz"),
    *((reader, i) for reader in (NibabelIO, NibabelIOWithReorient) for i in (".nii.gz", ".nii")),
    *((NaturalImage2DIO, i) for i in (".png", ".bmp", ".tif")),
    *((Tiff3DIO, i) for i in (".tif", ".tiff")),
    (UnknownIO, ".npy"),
]


@pytest.mark.parametrize("room", [0, 4096])
@pytest.mark.parametrize(("writer", "ending"), FULL_DISK)
def test_on_a_full_disk_the_old_map_stands(disk, writer, ending, room):
    properties = {"spacing": (2.0, 1.0, 1.0)}
    if issubclass(writer, SimpleITKIO):
        properties["sitk_stuff"] = SITK | {"original_orientation": "LPS"}
    elif writer in NIFTI_READERS:
        properties["nibabel_stuff"] = {"original_affine": AFFINE}
        if writer is NibabelIOWithReorient:
            properties["nibabel_stuff"]["reoriented_affine"] = np.eye(4)
    shape = (1, 150, 200) if writer is NaturalImage2DIO else (30, 25, 40)
    instances = np.random.default_rng(0).integers(0, 255 if ending == ".bmp" else 60_000, shape)

    def write():
        write_instances(instances, disk.folder / f"case{ending}", writer(), properties, ending)

    assert_whole_or_as_before(disk, write, room)


def test_a_map_and_what_belongs_to_it_appear_together(disk):
    """The map is small enough, the file beside it is not."""
    beside = {disk.folder / "case.csv": "1,2,3\n" * 2000}

    def write():
        write_instances(ids(3), disk.folder / "case.tif", Tiff3DIO(), {"spacing": (2, 1, 1)}, ".tif", beside)

    assert_whole_or_as_before(disk, write, 8192)
    assert sorted(i.name for i in disk.folder.iterdir()) == ["case.csv", "case.json", "case.tif"]
