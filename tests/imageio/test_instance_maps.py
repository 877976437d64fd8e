import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from support import assert_whole_or_as_before

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
    with pytest.raises(InputError, match=r"65536 instances do not fit into \.gipl \(at most 65535\)"):
        write_instances(ids(65_536), tmp_path / "case.gipl", SimpleITKIO(), {"sitk_stuff": SITK}, ".gipl")
    assert list(tmp_path.iterdir()) == []


def test_gipl_keeps_the_highest_id_that_it_can_hold(tmp_path):
    properties = {"sitk_stuff": SITK, "spacing": (1.0, 1.0, 1.0)}
    write_instances(ids(65_535), tmp_path / "case.gipl", SimpleITKIO(), properties, ".gipl")
    np.testing.assert_array_equal(read_instances(tmp_path / "case.gipl", SimpleITKIO())[0], ids(65_535))


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
    assert [file.name for file in tmp_path.iterdir()] == ["case.npy"]


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    class Failing(UnknownIO):
        def write_seg(self, seg, output_fname, properties):
            super().write_seg(seg, output_fname, properties)
            raise OSError("disk full")

    (tmp_path / "case.npy").write_bytes(b"older")
    with pytest.raises(InputError, match=r"case\.npy cannot be written completely \(disk full\)"):
        write_instances(ids(3), tmp_path / "case.npy", Failing(), {"spacing": (1, 1, 1)}, ".npy")
    assert (tmp_path / "case.npy").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 1


SITK = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)}
FULL_DISK = [
    *((SimpleITKIO, ending) for ending in (".nii.gz", ".nrrd", ".mha", ".gipl")),
    (SimpleITKIOWithReorient, ".nii.gz"),
    *((reader, ending) for reader in (NibabelIO, NibabelIOWithReorient) for ending in (".nii.gz", ".nii")),
    *((NaturalImage2DIO, ending) for ending in (".png", ".bmp", ".tif")),
    *((Tiff3DIO, ending) for ending in (".tif", ".tiff")),
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
    assert sorted(file.name for file in disk.folder.iterdir()) == ["case.csv", "case.json", "case.tif"]
