"""Refusals of the conversions; what they write is tested by the command."""

import json

import numpy as np
import pytest
from support import dataset_json, files_of, write_nifti

from nnunetv2_conflunet.preprocessing.conversion import write_instances_from_labels, write_labels_from_instances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
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
    with disk.room(4096), pytest.raises(InputError, match=r"a\.nii\.gz cannot be written whole"):
        convert(RawDataset(folder), num_processes=1, overwrite=True)
    assert files_of(disk.folder) == before
