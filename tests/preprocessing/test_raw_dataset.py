"""What is wrong with a raw dataset is said by the command, in a sentence, before it reads an image."""

import json
import shutil
import sys

import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from support import file_system, files_of, small_plans, unwritable, write_dataset

from nnunetv2_conflunet.commands import prepare
from nnunetv2_conflunet.preprocessing import conversion
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.utilities.errors import InputError

FOLDERS = (("imagesTr", "_0000"), ("labelsTr", ""), ("instancesTr", ""))


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return write_dataset(tmp_path / "raw" / "Dataset001_Small", n_cases=3, shape=(20, 24, 24), n_lesions=1)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command with options; returns its exit status, and what it printed."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "1", "-np", "1", *options])
        with pytest.raises(SystemExit) as exit_:
            prepare.main()
        return exit_.value.code, capsys.readouterr()

    return run


@pytest.fixture
def error_of(run):
    """Runs the command, which must fail before it reads an image, and returns its one line."""

    def error_of(*options):
        status, printed = run(*options)
        assert status == 1 and printed.err.startswith("Error: ") and printed.err.count("\n") == 1
        return printed.err

    return error_of


@pytest.fixture
def output_of(run):
    """Runs the command, which must not fail, and returns what it printed."""

    def output_of(*options):
        status, printed = run(*options)
        assert status == 0, printed.err
        return printed.out

    return output_of


def change_json(folder, **change):
    path = folder / "dataset.json"
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_another_ending_than_dataset_json_names(dataset, error_of):
    change_json(dataset, file_ending=".nii")
    error = error_of()
    assert "imagesTr holds no file that ends with .nii; put the training images there, or correct file_ending" in error
    assert "case_Tr0_0000.nii.gz (ends with .nii.gz)" in error


@pytest.mark.parametrize("ending", [".NII.GZ", ".nii"])
@pytest.mark.parametrize("folders", [FOLDERS, FOLDERS[1:], FOLDERS[2:]])
def test_a_case_with_another_ending_is_named(dataset, error_of, ending, folders):
    for folder, channel in folders:
        (dataset / folder / f"case_Tr1{channel}.nii.gz").rename(dataset / folder / f"case_Tr1{channel}{ending}")
    folder, channel = folders[0]
    assert f"{folder} holds entries that look like images and are skipped" in (error := error_of())
    assert f"case_Tr1{channel}{ending} (ends with {ending})" in error


@pytest.mark.parametrize("folder, channel", FOLDERS)
def test_links_to_nothing_and_folders_are_named(dataset, error_of, folder, channel):
    path = dataset / folder / f"case_Tr1{channel}.nii.gz"
    path.unlink()
    path.mkdir()
    assert f"{path.name} (a folder)" in error_of()
    path.rmdir()
    path.symlink_to(dataset / "absent.nii.gz")
    assert f"{path.name} (a link to nothing)" in error_of()


def test_files_of_no_training_case_are_named(dataset, output_of):
    shutil.copy(dataset / "instancesTr" / "case_Tr0.nii.gz", dataset / "instancesTr" / "other.nii.gz")
    (dataset / "imagesTr" / "overview.png").touch()
    output = output_of()
    assert "instancesTr holds files of no training case: other." in output and "overview.png" in output
    assert "3 instance maps match their labels." in output


def test_files_that_macos_wrote_beside_images(dataset, error_of, output_of):
    for folder, channel in FOLDERS:
        (dataset / folder / f"._case_Tr1{channel}.nii.gz").write_bytes(bytes.fromhex("00051607"))
    message = "imagesTr holds metadata files of macOS (._case_Tr1), which nnU-Net takes for images"
    assert message in (error := error_of()) and f"find {dataset / 'imagesTr'} -name '._*' -delete" in error
    # Beside labels and instance maps they are in nobody's way.
    (dataset / "imagesTr" / "._case_Tr1_0000.nii.gz").unlink()
    assert "3 instance maps match their labels." in output_of()


def test_no_images(dataset, error_of):
    for file in (dataset / "imagesTr").iterdir():
        file.unlink()
    assert "imagesTr holds no file that ends with .nii.gz; put the training images there" in error_of()
    (dataset / "imagesTr").rmdir()
    assert "imagesTr does not exist; put the training images there" in error_of()


def test_no_labels(dataset, error_of, output_of):
    (dataset / "labelsTr" / "case_Tr0.nii.gz").unlink()
    error = error_of()
    assert "1 of 3 training cases have no label in" in error and "case_Tr0. Put them there.\n" in error
    shutil.rmtree(dataset / "labelsTr")
    error = error_of()
    assert "3 of 3 training cases have no label in" in error and "case_Tr0, case_Tr1, case_Tr2" in error
    assert "`nnUNetv2_conflunet_prepare --labels_from_instances`" in error
    assert "3 labels written" in output_of("--labels_from_instances")


@pytest.mark.parametrize(
    "labels, message",
    [
        (
            {"0": "background", "1": "lesion"},
            "declares the labels {'0': 'background', '1': 'lesion'}; nnU-Net maps names",
        ),
        (None, 'declares no labels; nnU-Net maps names to numbers, as in "labels": {"background": 0, "lesion"'),
        ({}, "declares no labels"),
        (["background", "lesion"], "declares the labels ['background', 'lesion']"),
        ({"lesion": 1}, "declares the labels {'lesion': 1}"),
        ({"background": 1, "lesion": 0}, "declares the labels {'background': 1, 'lesion': 0}"),
        ({"background": 0, "lesion": "one"}, "declares the labels"),
        ({"background": 0, "ignore": 1, "lesion": 2}, "declares the labels"),
        (
            {"background": 0, "whole": [1, 2], "core": 2},
            "declares the labels {'background': 0, 'whole': [1, 2], 'core': 2}; nnU-Net maps names to numbers, as in "
            '"labels": {"background": 0, "lesion": 1}, and needs "regions_class_order" where a name has several ',
        ),
    ],
)
def test_labels_in_another_form_are_named(dataset, error_of, labels, message):
    change_json(dataset, labels=labels)
    assert f"dataset.json {message}" in error_of()


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda text: text[:-1] + ",}", "dataset.json is not valid JSON"),
        (lambda text: "\ufeff" + text, "save it as UTF-8 without a byte order mark"),
        (lambda text: '{"modality": {"0": "FLAIR"}, "training": []}', "nnUNetv2_convert_old_nnUNet_dataset"),
        (lambda text: "[]", "has no 'file_ending'"),
    ],
)
def test_dataset_json_in_another_form_is_named(dataset, error_of, edit, message):
    path = dataset / "dataset.json"
    path.write_text(edit(path.read_text()), encoding="utf-8")
    assert message in error_of()


@pytest.mark.parametrize("kind", ["a file", "read-only", "full"])
@pytest.mark.parametrize(
    "option, folder", [("--labels_from_instances", "labelsTr"), ("--instances_from_labels", "instancesTr")]
)
def test_an_unwritable_folder_is_named_before_the_work(dataset, tmp_path, error_of, monkeypatch, kind, option, folder):
    monkeypatch.setattr(conversion, "try_cases", None)
    with unwritable(kind, tmp_path) as place:
        shutil.rmtree(dataset / folder)
        (dataset / folder).symlink_to(place)
        error = error_of(option)
    assert folder in error and ("not a folder" if kind == "a file" else "Nothing can be written to") in error


def test_plans_that_cannot_be_written_are_named_before_the_work(dataset, tmp_path, error_of, monkeypatch):
    monkeypatch.setattr(prepare.InstanceCheck, "check", None)
    (tmp_path / "preprocessed").write_text("a file")
    assert "preprocessed is not a folder, so nothing can be written there" in error_of("--paper_configuration")


def test_training_cases_of_a_read_only_dataset_are_checked(dataset, tmp_path, output_of, monkeypatch):
    with file_system(tmp_path / "mounted", "size=4m"):
        shutil.copytree(tmp_path / "raw", tmp_path / "mounted" / "raw")
        monkeypatch.setenv("nnUNet_raw", str(tmp_path / "mounted" / "raw"))
        assert "3 instance maps match their labels." in output_of()


def test_the_cases_are_those_of_nnunet(dataset):
    raw = RawDataset(dataset)
    theirs = get_filenames_of_train_images_and_targets(str(dataset))
    assert {case.case: str(case.label) for case in raw.training_cases().values()} == {
        k: v["label"] for k, v in theirs.items()
    }
    # Listed in dataset.json, the files may lie anywhere.
    listed = {"a": {"images": ["../elsewhere/a.nii.gz"], "label": "../elsewhere/a_label.nii.gz"}}
    change_json(dataset, dataset=listed)
    (case,) = RawDataset(dataset).training_cases().values()
    assert case.label == dataset.parent / "elsewhere" / "a_label.nii.gz"
    assert case.instances == dataset / "instancesTr" / "a.nii.gz"


def test_a_first_label_that_no_reader_reads_is_not_in_the_way(dataset):
    (dataset / "labelsTr" / "case_Tr0.nii.gz").write_bytes(b"")
    assert type(RawDataset(dataset).reader()) is SimpleITKIO


def test_a_map_that_cannot_be_taken_is_named_in_training_too(dataset):
    path = dataset / "instancesTr" / "case_Tr1.nii.gz"
    path.rename(path.with_name("case_Tr1.NII.GZ"))
    message = r"1 of 3 training cases have no instance map .*: case_Tr1\. Expected .*case_Tr1\.NII\.GZ \(ends with"
    with pytest.raises(InputError, match=message):
        RawDataset(dataset).require_instances(["case_Tr0", "case_Tr1", "case_Tr2"])


def listed(dataset, **changed):
    """Let dataset.json list the cases; `changed` entries replace those of their case, or are added."""
    content = json.loads((dataset / "dataset.json").read_text())
    entries = {
        f"case_Tr{i}": {"images": [f"imagesTr/case_Tr{i}_0000.nii.gz"], "label": f"labelsTr/case_Tr{i}.nii.gz"}
        for i in range(3)
    }
    (dataset / "dataset.json").write_text(json.dumps(content | {"dataset": entries | changed}))


@pytest.mark.parametrize("name", ["../../victim", "/victim", "sub/victim", ".."])
@pytest.mark.parametrize("options", [(), ("--instances_from_labels", "--overwrite")])
def test_listed_cases_do_not_lead_to_other_folders(dataset, error_of, tmp_path, name, options):
    listed(dataset, **{name: {"images": ["imagesTr/case_Tr0_0000.nii.gz"], "label": "labelsTr/case_Tr0.nii.gz"}})
    before = files_of(tmp_path)
    assert f"'dataset' has cases whose names are not file names: '{name}'" in error_of(*options)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        {"images": []},
        *({"images": of_case, "label": "a"} for of_case in (3, [], "imagesTr/case_Tr1_0000.nii.gz")),
    ],
)
def test_a_list_of_another_form_is_named(dataset, error_of, entry):
    listed(dataset, case_Tr1=entry)
    assert "'dataset' is not in nnU-Net's format" in error_of()


def test_a_list_without_a_case_is_named(dataset, error_of):
    change_json(dataset, dataset={})
    assert "'dataset' is not in nnU-Net's format" in error_of()


@pytest.mark.parametrize("name", ["case_Tr0.nii.gz", "case_Tr0_t1ww.nii.gz", "_0000.nii.gz"])
def test_an_image_without_the_number_of_its_channel_is_named(dataset, error_of, name):
    (dataset / "imagesTr" / "case_Tr0_0000.nii.gz").rename(dataset / "imagesTr" / name)
    error = error_of()
    assert f"imagesTr holds images whose names do not end with the number of a channel: {name}. nnU-Net" in error


def test_labels_that_are_listed_elsewhere_are_read_and_not_written(dataset, error_of, output_of, tmp_path):
    shutil.copy(dataset / "labelsTr" / "case_Tr1.nii.gz", tmp_path / "elsewhere.nii.gz")
    entry = {"images": ["imagesTr/case_Tr1_0000.nii.gz"], "label": "../../elsewhere.nii.gz"}
    listed(dataset, case_Tr1=entry)
    assert "3 instance maps match their labels" in output_of()
    before = files_of(tmp_path)
    assert "lists labels outside its folder: " + str(tmp_path / "elsewhere.nii.gz") in error_of(
        "--labels_from_instances", "--overwrite"
    )
    assert files_of(tmp_path) == before


def test_a_linked_folder_of_labels_is_within_the_dataset(dataset, output_of, tmp_path):
    shutil.move(dataset / "labelsTr", tmp_path / "elsewhere")
    (dataset / "labelsTr").symlink_to(tmp_path / "elsewhere")
    listed(dataset)
    assert "3 labels written" in output_of("--labels_from_instances", "--overwrite")


def test_a_label_without_an_image_is_said(dataset, output_of):
    (dataset / "imagesTr" / "case_Tr1_0000.nii.gz").unlink()
    said = output_of()
    assert f"{dataset / 'labelsTr'} holds files of no training case: case_Tr1." in said
    assert "2 instance maps match their labels" in said


def test_plans_of_a_dataset_that_was_renamed_are_named(dataset, run, tmp_path):
    preprocessed = tmp_path / "preprocessed" / "Dataset001_Small"
    preprocessed.mkdir(parents=True)
    plans = small_plans() | {"dataset_name": "Dataset001_Before"}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "dataset.json").write_text((dataset / "dataset.json").read_text())
    status, printed = run()
    assert status == 1
    assert "nnUNetPlans.json belongs to Dataset001_Before, and nnU-Net looks for" in printed.err
