"""Which entries of a folder are cases, what becomes of the others, what dataset.json says, and which reader reads."""

import json

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from support import write_nifti

from nnunetv2_conflunet.imageio.case_folder import CaseFolder, endings_of, find_reader, first_file, read_dataset_json
from nnunetv2_conflunet.utilities.errors import InputError


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_cases_are_the_files_of_one_ending(tmp_path):
    touch(tmp_path, "b.nii.gz", "a-1.nii.gz", "a.nii.gz", "a.csv", "a.npz", "dataset.json", ".a.nii.gz", "._a.nii.gz")
    found = CaseFolder.of(tmp_path, ".nii.gz")
    # Sorted by case, where "a" comes before "a-1".
    assert list(found.files) == ["a", "a-1", "b"] and found.files["a"] == tmp_path / "a.nii.gz"
    assert found.passed_over == found.lost == {} and found.note == ""
    assert found.missing(["b", "a"]) == [] and str(found.missing_error("c is missing.")) == "c is missing."
    found.require_cases("nothing")
    found.refuse_lost()


def vanish(folder):
    touch(folder, "c1.nii.gz", "c2.NII.GZ", "c3.nii", "c4.mha", "c5.tiff")
    (folder / "c6.nii.gz").mkdir()
    (folder / "c7.nii.gz").symlink_to(folder / "absent.nii.gz")
    (folder / "c8.nrrd").symlink_to(folder / "absent.nrrd")
    return {
        "c2.NII.GZ": "ends with .NII.GZ",
        "c3.nii": "ends with .nii",
        "c4.mha": "ends with .mha",
        "c5.tiff": "ends with .tiff",
        "c6.nii.gz": "a folder",
        "c7.nii.gz": "a link to nothing",
        "c8.nrrd": "a link to nothing",
    }


def test_every_case_that_would_vanish_is_named(tmp_path):
    why = vanish(tmp_path)
    found = CaseFolder.of(tmp_path, ".nii.gz")
    assert list(found.files) == ["c1"] and found.lost == found.passed_over == why
    with pytest.raises(InputError) as error:
        found.refuse_lost()
    assert all(f"{name} ({reason})" in str(error.value) for name, reason in why.items())


def test_a_link_to_a_file_is_the_file(tmp_path):
    touch(tmp_path / "elsewhere", "x.nii.gz")
    touch(tmp_path / "cases")
    (tmp_path / "cases" / "a.nii.gz").symlink_to(tmp_path / "elsewhere" / "x.nii.gz")
    assert list(CaseFolder.of(tmp_path / "cases", ".nii.gz").files) == ["a"]


def test_further_files_of_a_case_and_previews_are_named_and_nothing_is_lost(tmp_path):
    touch(tmp_path, "a.nii.gz", "a.nii", "overview.png", "b.BMP")
    found = CaseFolder.of(tmp_path, ".nii.gz")
    assert set(found.passed_over) == {"a.nii", "overview.png", "b.BMP"} and found.lost == {}
    assert "overview.png (ends with .png)" in found.note
    # Among pictures another kind of picture is no preview.
    touch(tmp_path / "pictures", "a.png", "b.bmp")
    assert set(CaseFolder.of(tmp_path / "pictures", ".png").lost) == {"b.bmp"}


def test_none_left_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no file that ends with \.nii\.gz; look elsewhere\.$"):
        CaseFolder.of(tmp_path, ".nii.gz").require_cases("look elsewhere.")
    touch(tmp_path, "a.nii")
    with pytest.raises(InputError, match=r"look elsewhere\. .* holds entries that .*: a\.nii \(ends with \.nii\)\.$"):
        CaseFolder.of(tmp_path, ".nii.gz").require_cases("look elsewhere.")


def test_an_ending_in_other_letters_that_dataset_json_names(tmp_path):
    touch(tmp_path, "a.NII.GZ", "b.nii.gz")
    found = CaseFolder.of(tmp_path, ".NII.GZ")
    assert list(found.files) == ["a"] and list(found.lost) == ["b.nii.gz"]
    assert found.missing("cba") == ["b", "c"]
    assert "missing. " in (text := str(found.missing_error("b and c are missing."))) and text.endswith(
        "b.nii.gz (ends with .nii.gz)."
    )


def test_endings_of_a_folder(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.NII.GZ", "c.tif", "d.csv", ".e.nrrd")
    assert endings_of(tmp_path) == [".nii.gz", ".tif"]
    touch(tmp_path / "other", "a.TIF", "b.nii")
    assert endings_of(tmp_path, tmp_path / "other") == [".tif"]
    touch(tmp_path / "empty")
    assert endings_of(tmp_path, tmp_path / "empty") == []


def test_the_first_folder_that_has_a_file(tmp_path):
    for name in "ab":
        touch(tmp_path / name, "dataset.json")
    folders = [tmp_path / name for name in ("none", "b", "a")]
    assert first_file(folders, "dataset.json") == tmp_path / "b" / "dataset.json"
    assert first_file(folders, "plans.json") is None


@pytest.mark.parametrize(
    "content, message",
    [
        ({"name": "x", "labels": {}}, "has no 'file_ending'; it is not the dataset.json of an nnU-Net dataset"),
        ([1], "has no 'file_ending'"),
        ({"file_ending": None}, "has no 'file_ending'"),
        ({"modality": {"0": "FLAIR"}, "labels": {"0": "background"}, "training": []}, "has the format of nnU-Net v1"),
        ({"file_ending": "nii.gz"}, "no reader for files that end with nii.gz, only .*[.]nii[.]gz"),
        ({"file_ending": ".dcm"}, r"no reader for files that end with \.dcm"),
        ({"file_ending": ".nii.gz", "labels": ["lesion"]}, r"declares the labels \['lesion'\]; nnU-Net maps"),
        ({"file_ending": ".nii.gz", "labels": None}, "declares the labels None; nnU-Net maps"),
    ],
)
def test_other_forms_of_dataset_json_are_named(tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"dataset\.json.*{message}"):
        read_dataset_json(tmp_path / "dataset.json")


@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ", ".tif"])
def test_dataset_json_as_nnunet_has_it(tmp_path, ending):
    (tmp_path / "dataset.json").write_text(json.dumps({"file_ending": ending}))
    assert read_dataset_json(tmp_path / "dataset.json") == {"file_ending": ending}


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


def test_a_reader_that_is_no_name_is_refused():
    with pytest.raises(InputError, match="names the reader 5; it must be a name of nnU-Net's"):
        find_reader({"file_ending": ".nii.gz", "overwrite_image_reader_writer": 5}, [])


def test_an_ending_without_a_reader_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no reader for files that end with \.dcm"):
        find_reader({"file_ending": ".dcm"}, [tmp_path / "a.dcm"])
