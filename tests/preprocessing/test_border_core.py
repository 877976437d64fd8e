"""The dataset of cores and borders: what it holds, what is refused, and that nothing is left behind."""

import json
import os
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from support import balls, dataset_json, files_of, nnunet_environment, run, write_nifti

import nnunetv2_conflunet.preprocessing.border_core as border_core
from nnunetv2_conflunet.commands.prepare import main
from nnunetv2_conflunet.postprocessing.baselines.border_core import BorderCore, BorderCoreSettings
from nnunetv2_conflunet.preprocessing import instance_map
from nnunetv2_conflunet.preprocessing.border_core import write_border_core_dataset
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE, SPACING = (12, 20, 24), (0.9, 1.0, 2.0)  # spacing in file order
CASES = ["ms_1", "ms_2"]
NAME, NEW = "Dataset007_Lesions", "Dataset008_LesionsBorderCore"


def lesions(seed):
    return balls(SHAPE, [(6, 8, 6 + seed), (6, 8, 12 + seed), (6, 15, 17)], 4.0, SPACING[::-1])


@pytest.fixture
def raw(monkeypatch, tmp_path):
    """nnUNet_raw with a dataset of two channels, two training cases and a test case."""
    folder = tmp_path / "raw" / NAME
    for i, case in enumerate([*CASES, "ms_9"]):
        split = "Ts" if case == "ms_9" else "Tr"
        for channel in (0, 1):
            image = np.full(SHAPE, 10 * i + channel, np.float32)
            write_nifti(image, folder / f"images{split}" / f"{case}_{channel:04d}.nii.gz", SPACING, (1, 2, 3))
        for kind, array in (("instances", lesions(i)), ("labels", (lesions(i) > 0).astype(np.uint8))):
            write_nifti(array, folder / f"{kind}{split}" / f"{case}.nii.gz", SPACING, (1, 2, 3))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(channels=2)))
    for variable in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{variable}", str(tmp_path / variable))
    return folder.parent


def write(raw, new_id=8, thickness_mm=1.0):
    return write_border_core_dataset(RawDataset(raw / NAME), new_id, BorderCoreSettings(thickness_mm), 1)


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_whole_dataset_is_written(raw):
    before = files_of(raw)
    folder, counts = write(raw)
    assert folder == raw / NEW and (counts.n_lesions, counts.n_thin) == (6, 0)
    assert sorted(files_of(folder)) == sorted(
        ["dataset.json", *(f"labelsTr/{case}.nii.gz" for case in CASES)]
        + [f"imagesTr/{case}_{channel}.nii.gz" for case in CASES for channel in ("0000", "0001")]
        + [f"imagesTs/ms_9_{channel}.nii.gz" for channel in ("0000", "0001")]
    )
    for i, case in enumerate(CASES):
        expected = BorderCore.of(lesions(i), SPACING[::-1]).labels
        np.testing.assert_array_equal(read(folder / "labelsTr" / f"{case}.nii.gz"), expected)
        assert sitk.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz")).GetOrigin() == (1, 2, 3)
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "core": 1, "border": 2} and content["numTraining"] == 2
    assert content["channel_names"] == dataset_json(channels=2)["channel_names"]
    assert content["border_core"] == {"source": NAME, "thickness_mm": 1.0}
    # The source is as it was, and nothing else has appeared.
    after = files_of(raw)
    assert {name: after[name] for name in before} == before
    assert sorted(entry.name for entry in raw.iterdir()) == [NAME, NEW]


@pytest.mark.parametrize("kind", ["links", "copies", "source is a link"])
def test_images_are_the_same_with_and_without_links(raw, monkeypatch, kind):
    source = raw / NAME / "imagesTr" / "ms_1_0000.nii.gz"
    if kind == "copies":
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(18, "Invalid cross-device link")))
    if kind == "source is a link":
        source.rename(raw / "elsewhere.nii.gz")
        source.symlink_to(raw / "elsewhere.nii.gz")
    folder, _ = write(raw)
    for split in ("imagesTr", "imagesTs"):
        assert files_of(folder / split) == files_of(raw / NAME / split)
    found = folder / "imagesTr" / "ms_1_0000.nii.gz"
    assert not found.is_symlink() and found.samefile(source) == (kind != "copies")


def test_images_that_dataset_json_lists_get_nnunets_names(raw):
    images = [raw / NAME / "imagesTr" / f"ms_1_{channel}.nii.gz" for channel in ("0000", "0001")]
    listed = {"a": {"images": [str(images[1]), "imagesTr/ms_1_0000.nii.gz"], "label": "labelsTr/ms_1.nii.gz"}}
    content = dataset_json(channels=2) | {"dataset": listed}
    (raw / NAME / "dataset.json").write_text(json.dumps(content))
    (raw / NAME / "instancesTr" / "ms_1.nii.gz").rename(raw / NAME / "instancesTr" / "a.nii.gz")
    folder, _ = write(raw)
    assert sorted(files_of(folder / "imagesTr")) == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert (folder / "imagesTr" / "a_0000.nii.gz").samefile(images[1])
    assert "dataset" not in json.loads((folder / "dataset.json").read_text())
    (raw / NEW).rename(raw / "kept")
    images[1].unlink()
    with pytest.raises(InputError, match=r"1 images that dataset\.json lists do not exist: .*ms_1_0001\.nii\.gz"):
        write(raw)
    assert sorted(entry.name for entry in raw.iterdir()) == [NAME, "kept"]


def test_an_ignore_label_stays(raw):
    content = dataset_json({"background": 0, "lesion": 1, "ignore": 2}, channels=2)
    (raw / NAME / "dataset.json").write_text(json.dumps(content))
    label = (lesions(0) > 0).astype(np.uint8)
    label[:, :3] = 2
    write_nifti(label, raw / NAME / "labelsTr" / "ms_1.nii.gz", SPACING, (1, 2, 3))
    folder, _ = write(raw)
    found = read(folder / "labelsTr" / "ms_1.nii.gz")
    np.testing.assert_array_equal(found == 3, label == 2)
    np.testing.assert_array_equal((found > 0) & (found < 3), label == 1)
    assert json.loads((folder / "dataset.json").read_text())["labels"]["ignore"] == 3


def test_the_spacing_of_tiffs_goes_along(tmp_path, monkeypatch):
    folder = tmp_path / NAME
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    for name in ("imagesTr/a_0000", "labelsTr/a", "instancesTr/a"):
        (folder / name).parent.mkdir(parents=True)
        array = lesions(0).astype(np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", (array > 0).astype(np.uint8) if "labels" in name else array)
        (folder / f"{name.removesuffix('_0000')}.json").write_text('{"spacing": [2.0, 1.0, 0.9]}')
    content = dataset_json(file_ending=".tif") | {"overwrite_image_reader_writer": "Tiff3DIO"}
    (folder / "dataset.json").write_text(json.dumps(content))
    new, _ = write_border_core_dataset(RawDataset(folder), 8, BorderCoreSettings(), 1)
    assert sorted(files_of(new)) == [
        "dataset.json", "imagesTr/a.json", "imagesTr/a_0000.tif", "labelsTr/a.json", "labelsTr/a.tif",
    ]  # fmt: skip
    expected = BorderCore.of(lesions(0), (2.0, 1.0, 0.9)).labels
    np.testing.assert_array_equal(tifffile.imread(new / "labelsTr" / "a.tif"), expected)


@pytest.mark.parametrize(
    "new_id, thickness_mm, message",
    [
        (
            8,
            40.0,
            r"A border of 40 mm is thicker than every lesion of Dataset007_Lesions: the deepest voxel",
        ),
        (7, 1.0, r"The id 7 is taken by .*Dataset007_Lesions; choose another one"),
        (1000, 1.0, "The id of the new dataset is 1000; nnU-Net's ids go from 0 to 999"),
        (-1, 1.0, "The id of the new dataset is -1"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(raw, new_id, thickness_mm, message):
    before = files_of(raw)
    with pytest.raises(InputError, match=message):
        write(raw, new_id, thickness_mm)
    assert files_of(raw) == before and [entry.name for entry in raw.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--border_core", 7], "The id 7 is taken by"),
        (["--border_core", 8, "--border_thickness_mm", 0], "thickness_mm is 0.0; it must be a positive number"),
        (["--draft", "acls", "--draft_predictions", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_the_maps_are_read(raw, monkeypatch, capsys, options, message):
    monkeypatch.setattr(instance_map, "read_instances", None)
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_prepare", "-d", "7", "-np", "1", *map(str, options)])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("place", ["preprocessed", "results"])
def test_an_id_that_nnunet_knows_elsewhere_is_taken(raw, place):
    (raw.parent / place / "Dataset008_Other").mkdir(parents=True)
    with pytest.raises(InputError, match=r"The id 8 is taken by .*Dataset008_Other"):
        write(raw)


def test_several_labels_are_refused(raw):
    content = dataset_json({"background": 0, "a": 1, "b": 2}, channels=2)
    (raw / NAME / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has 2 foreground labels; cores and borders do not say which"):
        write(raw)


def test_unknown_instances_are_refused_and_a_mere_declaration_is_not(raw):
    content = dataset_json(channels=2) | {"instances": {"unknown": 3, "drawn_by": "A"}}
    (raw / NAME / "dataset.json").write_text(json.dumps(content))
    n = np.count_nonzero(lesions(1) == 3)
    write_nifti(np.where(lesions(0) == 3, 4, lesions(0)), raw / NAME / "instancesTr/ms_1.nii.gz", SPACING, (1, 2, 3))
    with pytest.raises(
        InputError, match=rf"1 of 2 cases .*\n  ms_2: {n} voxels are of unknown instances \(id 3\), which"
    ):
        write(raw)
    assert [entry.name for entry in raw.iterdir()] == [NAME]
    write_nifti(np.where(lesions(1) == 3, 4, lesions(1)), raw / NAME / "instancesTr/ms_2.nii.gz", SPACING, (1, 2, 3))
    folder, _ = write(raw)
    assert json.loads((folder / "dataset.json").read_text())["instances"] == {"drawn_by": "A"}


def test_a_dataset_without_a_lesion_is_refused(raw):
    for i, case in enumerate(CASES):
        write_nifti(lesions(i) * 0, raw / NAME / "instancesTr" / f"{case}.nii.gz", SPACING, (1, 2, 3))
    with pytest.raises(InputError, match="The instance maps of Dataset007_Lesions hold no lesion"):
        write(raw)


def test_a_broken_map_is_named_and_nothing_is_written(raw):
    (raw / NAME / "instancesTr" / "ms_2.nii.gz").write_bytes(b"")
    before = files_of(raw)
    with pytest.raises(InputError, match=r"1 of 2 cases cannot be converted:\n  ms_2: .*it is empty"):
        write(raw)
    assert files_of(raw) == before and [entry.name for entry in raw.iterdir()] == [NAME]


@pytest.mark.parametrize("fails", ["_link_images", "write_json"])
def test_what_fails_late_leaves_nothing(raw, monkeypatch, fails):
    def fail(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr(border_core, fails, fail)
    with pytest.raises(InputError, match="the disk is full"):
        write(raw)
    assert [entry.name for entry in raw.iterdir()] == [NAME]


@pytest.mark.command
def test_the_command_says_what_it_wrote(raw):
    command = ["nnUNetv2_conflunet_prepare", "-d", "7", "--border_core", "8", "-np", "1"]
    said = run(command, nnunet_environment(raw.parent)).stdout
    assert f"{NEW} written: 6 lesions with a border of 1 mm. 0 are too thin" in said
    assert "nnUNetv2_plan_and_preprocess -d 8" in said


def test_the_command_takes_a_thickness_and_refuses_in_one_line(raw, monkeypatch, capsys):
    command = "nnUNetv2_conflunet_prepare -d 7 --border_core 8 --border_thickness_mm 50 -np 1"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit, match="1"):
        main()
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: A border of 50 mm is thicker than every lesion of Dataset007_Lesions")
    assert not (raw / NEW).exists()
