import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from support import write_nifti

from nnunetv2_conflunet.imageio import find_reader
from nnunetv2_conflunet.utilities.errors import InputError


def test_broken_files_do_not_decide_and_are_left_for_the_reading(tmp_path, capfd):
    empty, text, mac = (tmp_path / f"{name}.nii.gz" for name in ("empty", "text", "._case"))
    empty.touch()
    text.write_bytes(b"no image")
    mac.write_bytes(b"Mac OS X")
    write_nifti(np.zeros((4, 5, 6), np.uint8), tmp_path / "whole.nii.gz")
    files = [tmp_path / "missing.nii.gz", empty, mac, text, tmp_path / "whole.nii.gz"]
    assert find_reader({"file_ending": ".nii.gz"}, files) is SimpleITKIO
    assert find_reader({"file_ending": ".nii.gz"}, files[:-1]) is SimpleITKIO
    assert capfd.readouterr().err == ""


def test_the_first_file_that_can_be_read_decides_between_the_readers_of_an_ending(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((7, 8, 9), np.uint8))
    assert find_reader({"file_ending": ".tif"}, [tmp_path / "a.tif", tmp_path / "b.tif"]) is Tiff3DIO


def test_the_reader_of_dataset_json_needs_no_file():
    content = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    assert find_reader(content, []) is NibabelIO


def test_an_ending_without_a_reader_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no reader for files that end with \.dcm"):
        find_reader({"file_ending": ".dcm"}, [tmp_path / "a.dcm"])
