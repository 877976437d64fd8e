"""The names of a case's files, against what nnU-Net's writers make of them."""

import numpy as np
import pytest
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunetv2_conflunet.inference.case_files import OutputFiles, check_distinct
from nnunetv2_conflunet.utilities.errors import InputError

WRITERS = SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient, NaturalImage2DIO, Tiff3DIO
PROPERTIES = {
    "spacing": (1, 1, 1),
    "sitk_stuff": {
        "spacing": (1, 1, 1),
        "origin": (0, 0, 0),
        "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1),
        "original_orientation": "LPS",
    },
    "nibabel_stuff": {"original_affine": np.eye(4), "reoriented_affine": np.eye(4)},
}
NAMES = "t", "t.nii.gz", "s.nii", "s.NII", "a.nii.gz.nii.gz", "a.b", "v1.2.nrrd", "x.mha.gz", "p.png"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("writer", WRITERS)
def test_the_segmentation_is_where_the_writer_puts_it(tmp_path, writer, name):
    for ending in writer.supported_file_endings:
        folder = tmp_path / ending.replace(".", "_")
        folder.mkdir()
        writer().write_seg(np.ones((1, 5, 6), np.uint8), str(folder / name) + ending, PROPERTIES)
        found = OutputFiles.of(str(folder / name), ending, writer)
        assert found.segmentation in folder.iterdir()
        instances = found.instances
        assert instances.case + instances.file_ending == instances.map.name == found.segmentation.name
        assert instances.file_ending.lower() == ending
        assert found.probabilities == folder / f"{name}.npz"
        assert instances.heads == folder / "instances" / f"{instances.case}.npz"


@pytest.mark.parametrize(
    ("name", "case", "ending"),
    [
        ("t.nii.gz", "t", ".nii.gz"),
        ("s.nii", "s", ".nii.gz"),
        ("s.NII", "s", ".NII.GZ"),
        ("a.nii.gz.nii.gz", "a.nii.gz", ".nii.gz"),
        ("a.b", "a.b", ".nii.gz"),
    ],
)
def test_names_that_itk_folds(tmp_path, name, case, ending):
    found = OutputFiles.of(str(tmp_path / name), ".nii.gz", SimpleITKIO).instances
    assert (found.case, found.file_ending) == (case, ending)


def test_a_name_of_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"case 's\.hdr' to s\.hdr\.gz, which is not a \.nii\.gz file. Rename"):
        OutputFiles.of(str(tmp_path / "s.hdr"), ".nii.gz", SimpleITKIO)
    # ITK finds the ".gz" of the folder, and compresses nothing.
    folder = tmp_path / "unpacked.gz"
    folder.mkdir()
    SimpleITKIO().write_seg(np.ones((1, 5, 6), np.uint8), str(folder / "s.nii.nii.gz"), PROPERTIES)
    assert [file.name for file in folder.iterdir()] == ["s.nii"]
    with pytest.raises(InputError, match=r"case 's\.nii' to s\.nii, which is not a \.nii\.gz file"):
        OutputFiles.of(str(folder / "s.nii"), ".nii.gz", SimpleITKIO)


def test_two_cases_in_one_file_are_refused():
    files = [OutputFiles.of(f"o/{name}", ".nii.gz", SimpleITKIO) for name in ("a", "s", "s.nii")]
    check_distinct(files[:2])
    with pytest.raises(InputError, match=r"Two cases would be written to o/s\.nii\.gz; rename one"):
        check_distinct(files)
