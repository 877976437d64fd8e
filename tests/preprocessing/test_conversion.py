"""Refusals of the conversions; what they write else is tested by the command."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from support import dataset_json, files_of, write_nifti

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.preprocessing.conversion import write_instances_from_labels, write_labels_from_instances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.requested_conversion import Conversion
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.draft import Division, write_draft
from nnunetv2_conflunet.preprocessing.semantic_only.sorting import write_sorted_components
from nnunetv2_conflunet.utilities.errors import InputError


@pytest.mark.parametrize(
    "labels, message",
    [
        ({"background": 0, "lesion": 1, "ignore": 2}, "has an ignore label; .* Write labelsTr yourself"),
        ({"background": 0, "a": 1, "b": 2}, "has 2 foreground labels"),
    ],
)
def test_labels_that_instances_do_not_know_are_not_overwritten(tmp_path, labels, message):
    folder = tmp_path / "Dataset001_Small"
    label = np.zeros((4, 5, 6), np.uint8)
    label[1, 1, 1], label[3] = 1, 2
    write_nifti(label.astype(np.float32), folder / "imagesTr" / "a_0000.nii.gz", (1, 1, 1))
    write_nifti(label, folder / "labelsTr" / "a.nii.gz", (1, 1, 1))
    write_nifti((label == 1).astype(np.uint8), folder / "instancesTr" / "a.nii.gz", (1, 1, 1))
    (folder / "dataset.json").write_text(json.dumps(dataset_json() | {"labels": labels}))
    before = (folder / "labelsTr" / "a.nii.gz").read_bytes()
    with pytest.raises(InputError, match=message):
        write_labels_from_instances(RawDataset(folder), num_processes=1, overwrite=True)
    assert (folder / "labelsTr" / "a.nii.gz").read_bytes() == before


def dataset_of(tmp_path, label, file_ending=".nii.gz"):
    """A raw dataset of two cases with this label, and without instances."""
    folder = tmp_path / "Dataset001_Small"
    for case in "ab":
        write_nifti(np.zeros((4, 5, 6), np.float32), folder / "imagesTr" / f"{case}_0000{file_ending}")
        (folder / "labelsTr").mkdir(exist_ok=True)
        sitk.WriteImage(label, str(folder / "labelsTr" / f"{case}{file_ending}"))
    (folder / "dataset.json").write_text(json.dumps(dataset_json(file_ending=file_ending)))
    return RawDataset(folder)


def lesion(value):
    label = np.zeros((4, 5, 6), np.uint8)
    label[1:3, 1:3, 1:3] = value
    return sitk.GetImageFromArray(label)


def test_the_parts_of_a_lesion_that_regions_name_are_one_component(tmp_path):
    label = sitk.GetArrayFromImage(lesion(1))
    label[1, 1], label[3, 4, 5] = 2, 2
    dataset = dataset_of(tmp_path, sitk.GetImageFromArray(label))
    regions = dataset_json({"background": 0, "whole": [1, 2], "core": 2})
    (dataset.folder / "dataset.json").write_text(json.dumps(regions))
    write_instances_from_labels(RawDataset(dataset.folder), num_processes=1, overwrite=False, connectivity=6)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.folder / "instancesTr" / "a.nii.gz")))
    expected = (label > 0).astype(int)
    expected[3, 4, 5] = 2
    np.testing.assert_array_equal(found, expected)


def test_no_component_gets_the_id_of_unknown_instances(tmp_path):
    label = sitk.GetArrayFromImage(lesion(1))
    label[0, 4, 5], label[3, 4, 5] = 1, 1
    dataset = dataset_of(tmp_path, sitk.GetImageFromArray(label))
    (dataset.folder / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": 2}}))
    write_instances_from_labels(RawDataset(dataset.folder), num_processes=1, overwrite=False)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.folder / "instancesTr" / "a.nii.gz")))
    assert (found[0, 4, 5], found[1, 1, 1], found[3, 4, 5]) == (1, 3, 4)
    np.testing.assert_array_equal(found > 0, label)


def test_labels_of_0_and_255_give_no_empty_instance_maps_but_the_remedy(tmp_path):
    dataset = dataset_of(tmp_path, lesion(255))
    with pytest.raises(InputError, match=r"2 of 2 files.*\n.*a\.nii\.gz holds 255 .* replace 255 with 1 in every"):
        write_instances_from_labels(dataset, num_processes=1, overwrite=False)
    assert not dataset.instances_folder.exists()


def test_a_label_of_one_frame_gives_a_volume_of_instances(tmp_path):
    dataset = dataset_of(tmp_path, sitk.JoinSeries([lesion(1)]), ".nrrd")
    assert write_instances_from_labels(dataset, num_processes=1, overwrite=False) == 2
    written = sitk.ReadImage(str(dataset.instances_folder / "a.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(lesion(1)))


def test_a_broken_first_label_is_named(tmp_path):
    dataset = dataset_of(tmp_path, lesion(1))
    (dataset.folder / "labelsTr" / "a.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"1 of 2 files cannot be used:\n.*a\.nii\.gz cannot be read: it is empty"):
        write_instances_from_labels(dataset, num_processes=1, overwrite=False)


@pytest.mark.parametrize("convert", [write_labels_from_instances, write_instances_from_labels])
def test_on_a_full_disk_the_old_files_stand(disk, tmp_path, convert):
    # On a disk of its own is only what is written.
    folder = tmp_path / "Dataset001_Small"
    folder.mkdir()
    specks = (np.random.default_rng(0).random((40, 50, 60)) < 0.1).astype(np.uint8)
    written = "labelsTr" if convert is write_labels_from_instances else "instancesTr"
    (disk.folder / written).mkdir()
    (folder / written).symlink_to(disk.folder / written, target_is_directory=True)
    for name in ("imagesTr", "labelsTr", "instancesTr"):
        write_nifti(specks, folder / name / f"a{'_0000' * (name == 'imagesTr')}.nii.gz", (1, 1, 1))
    (folder / "dataset.json").write_text(json.dumps(dataset_json()))
    before = files_of(disk.folder)
    # Locks of nnU-Net's processes need some bytes, too.
    with disk.room(4096), pytest.raises(InputError, match=r"a\.nii\.gz cannot be written completely"):
        convert(RawDataset(folder), num_processes=1, overwrite=True)
    assert files_of(disk.folder) == before


def test_unknown_instances_are_lesion_in_the_labels(tmp_path):
    dataset = dataset_of(tmp_path, lesion(1))
    instances = np.zeros((4, 5, 6), np.uint16)
    instances[1, 1, 1], instances[2, 3:, 3:] = 1, 900
    for case in "ab":
        write_nifti(instances, dataset.folder / "instancesTr" / f"{case}.nii.gz")
    (dataset.folder / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": 900}}))
    assert write_labels_from_instances(RawDataset(dataset.folder), num_processes=1, overwrite=True) == 2
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.folder / "labelsTr" / "a.nii.gz")))
    np.testing.assert_array_equal(written, instances > 0)


def split_labels(dataset):
    write_instances_from_labels(dataset, num_processes=1, overwrite=True)


def join_instances(dataset):
    write_labels_from_instances(dataset, num_processes=1, overwrite=True)


def sort_components(dataset):
    write_sorted_components(dataset, ComponentSettings(), 1, overwrite=True)


def draft(dataset):
    settings = InstantiationSettings(method="watershed", min_volume_mm3=0, min_extent_mm=0)
    write_draft(dataset, dataset.folder / "draft", Division(settings), 1, overwrite=False)


@pytest.mark.parametrize("write", [split_labels, join_instances, sort_components, draft])
def test_each_file_is_read_once(tmp_path, monkeypatch, write):
    dataset = dataset_of(tmp_path, lesion(1))
    for case, value in (("a", 3), ("b", 9)):
        (dataset.folder / "instancesTr").mkdir(exist_ok=True)
        sitk.WriteImage(lesion(value), str(dataset.folder / "instancesTr" / f"{case}.nii.gz"))
    (dataset.folder / "dataset.json").write_text(json.dumps(dataset_json() | {"instances": {"unknown": 9}}))
    read, paths = SimpleITKIO.read_seg, []
    monkeypatch.setattr(SimpleITKIO, "read_seg", lambda self, path: paths.append(path) or read(self, path))
    write(RawDataset(dataset.folder))
    assert len(paths) == len(set(paths)) and {path.rpartition("/")[2] for path in paths} == {"a.nii.gz", "b.nii.gz"}
    assert not list(dataset.folder.rglob(".*"))


def test_good_cases_wait_for_those_that_cannot_be_used(tmp_path):
    dataset = dataset_of(tmp_path, lesion(1))
    (dataset.folder / "labelsTr" / "b.nii.gz").write_bytes(b"")
    before = files_of(dataset.folder)
    for write in (split_labels, sort_components):
        with pytest.raises(InputError, match="1 of 2 files cannot be used"):
            write(dataset)
    assert files_of(dataset.folder) == before and not dataset.instances_folder.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_maps_are_not_replaced_by_the_components_of_labels_made_from_them(overwrite):
    with pytest.raises(InputError, match="--labels_from_instances reads the instance maps that"):
        Conversion(labels_from_instances=True, instances_from_labels=True, overwrite=overwrite)
