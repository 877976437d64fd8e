import re

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from support import balls, write_nifti

from nnunetv2_conflunet.preprocessing.instance_map import InstanceCheck
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase
from nnunetv2_conflunet.utilities.errors import InputError

LABELS = LabelManager({"background": 0, "lesion": 1}, None)
INSTANCES = balls((12, 12, 12), [(4, 6, 6), (9, 6, 6)], 2.6)


def check(cases, reader, labels, num_processes):
    InstanceCheck.of(reader, labels).check(cases, num_processes)


@pytest.fixture
def case(tmp_path):
    found = RawCase("ms_1", tmp_path / "labelsTr" / "ms_1.nii.gz", tmp_path / "instancesTr" / "ms_1.nii.gz")
    write_nifti((INSTANCES > 0).astype(np.uint8), found.label)
    write_nifti(INSTANCES.astype(np.uint16), found.instances)
    return found


def message(case, labels=LABELS):
    with pytest.raises(InputError) as error:
        check([case], SimpleITKIO, labels, 1)
    return str(error.value)


def test_a_fitting_case_passes(case):
    check([case], SimpleITKIO, LABELS, 1)


def test_an_empty_case_passes(case):
    write_nifti(np.zeros(INSTANCES.shape, np.uint8), case.label)
    write_nifti(np.zeros(INSTANCES.shape, np.uint8), case.instances)
    check([case], SimpleITKIO, LABELS, 1)


def test_a_signed_float_label_passes(case):
    write_nifti((INSTANCES > 0).astype(np.float32), case.label)
    write_nifti(INSTANCES.astype(np.int16), case.instances)
    check([case], SimpleITKIO, LABELS, 1)


def test_the_support_must_be_the_foreground(case):
    wrong = INSTANCES.copy()
    wrong[wrong == 2] = 0
    wrong[0, 0, :3] = 3
    write_nifti(wrong.astype(np.uint16), case.instances)
    missing = np.count_nonzero(INSTANCES == 2)
    text = message(case)
    assert "ms_1" in text
    assert f"{missing + 3} voxels" in text
    assert f"{missing} lesion voxels without an id, 3 voxels with an id outside" in text


def test_the_ignore_label_belongs_to_no_instance(case):
    label = (INSTANCES > 0).astype(np.uint8)
    label[0] = 2
    write_nifti(label, case.label)
    check([case], SimpleITKIO, LabelManager({"background": 0, "lesion": 1, "ignore": 2}, None), 1)
    assert "lesion voxels without an id" in message(case, LabelManager({"background": 0, "a": 1, "b": 2}, None))


@pytest.mark.parametrize(
    "place, word",
    [
        ({"spacing_mm": (1, 1, 2)}, "spacing"),
        ({"origin": (0, 0, 1)}, "origin"),
        ({"direction": np.diag([-1, 1, 1])}, "direction"),
    ],
)
def test_the_geometry_must_be_the_labels(case, place, word):
    write_nifti(INSTANCES.astype(np.uint16), case.instances, **place)
    assert word in message(case)


def test_another_size(case):
    write_nifti(INSTANCES[:-1].astype(np.uint16), case.instances)
    assert "size (11, 12, 12) instead of (12, 12, 12)" in message(case)


@pytest.mark.parametrize(
    "values, word",
    [
        (np.where(INSTANCES == 1, -1, INSTANCES), "negative"),
        (INSTANCES * 0.5, "fractional"),
        (np.where(INSTANCES == 1, np.nan, INSTANCES), "NaN"),
        (np.stack([INSTANCES, INSTANCES]), "channels"),
    ],
)
def test_values_that_are_no_ids(case, values, word):
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32).transpose(), np.diag([-1, -1, 1, 1])), case.instances)
    text = message(case)
    assert word in text and "ms_1.nii.gz" in text


def test_a_truncated_file(case):
    content = case.instances.read_bytes()
    case.instances.write_bytes(content[:-40])
    assert f"{case.instances} cannot be read: it is damaged or cut off" in message(case)


def test_an_unreadable_label_is_named(case):
    case.label.write_bytes(b"no image")
    assert f"{case.label} cannot be read: it is damaged or cut off" in message(case)


def test_every_bad_case_is_named_at_once(case, tmp_path):
    others = []
    for i in (2, 3):
        other = RawCase(f"ms_{i}", case.label, tmp_path / "instancesTr" / f"ms_{i}.nii.gz")
        write_nifti(np.zeros_like(INSTANCES).astype(np.uint16), other.instances)
        others.append(other)
    with pytest.raises(InputError, match="2 of 3 cases") as error:
        check([case, *others], SimpleITKIO, LABELS, 2)
    assert "ms_2" in str(error.value) and "ms_3" in str(error.value)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def two_frames(path):
    frame = sitk.GetImageFromArray((INSTANCES > 0).astype(np.uint8))
    sitk.WriteImage(sitk.JoinSeries([frame, frame]), str(path))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda path: write_nifti((INSTANCES > 0).astype(np.uint8) * 255, path), "holds 255 in .* replace 255 with 1"),
        (lambda path: write_nifti(np.where(INSTANCES, 1, 7).astype(np.uint8), path), "holds 7 in .* declares 0, 1"),
        (lambda path: write_nifti(np.where(INSTANCES, 1, np.nan), path), "holds NaN or infinite values"),
        (lambda path: write_nifti(np.where(INSTANCES, 1, 0.25), path), "holds fractional values"),
        (two_frames, "has 2 channels or time points"),
        (cut, "cannot be read: it is damaged or cut off"),
        (lambda path: path.write_bytes(b""), "cannot be read: it is empty"),
    ],
)
def test_a_label_that_is_none_is_blamed_and_nothing_is_advised_that_writes_over_it(case, spoil, reason):
    spoil(case.label)
    text = message(case)
    assert re.search(rf"ms_1: {case.label} {reason}", text)
    assert "labels_from_instances" not in text


def test_voxels_of_unknown_instances_are_lesion(case):
    with_id = np.where(INSTANCES == 2, 900, INSTANCES)
    write_nifti(with_id.astype(np.uint16), case.instances)
    check = InstanceCheck.of(SimpleITKIO, LABELS, unknown=900)
    seen = check.check([case], 1, look=lambda instances, _: np.unique(instances).tolist())
    assert seen == {"ms_1": [0, 1, 900]}
    # They belong to the foreground of the label.
    write_nifti((INSTANCES == 1).astype(np.uint8), case.label)
    with pytest.raises(InputError, match=rf"{np.count_nonzero(INSTANCES == 2)} voxels with an id outside lesions"):
        check.check([case], 1)


def test_a_dataset_of_unknown_instances_only_is_refused(case, tmp_path):
    empty = RawCase("ms_2", tmp_path / "labelsTr" / "ms_2.nii.gz", tmp_path / "instancesTr" / "ms_2.nii.gz")
    for file in (empty.label, empty.instances):
        write_nifti(np.zeros(INSTANCES.shape, np.uint8), file)
    write_nifti(((INSTANCES > 0) * 900).astype(np.uint16), case.instances)
    n = np.count_nonzero(INSTANCES)
    with pytest.raises(InputError, match=rf"unknown instance \({n} voxels in 1 of 2 cases\), so no lesion"):
        InstanceCheck.of(SimpleITKIO, LABELS, unknown=900).check([case, empty], 1)
    # Without the declaration it is one lesion; and the declaration alone is fine.
    check([case, empty], SimpleITKIO, LABELS, 1)
    InstanceCheck.of(SimpleITKIO, LABELS, unknown=901).check([case, empty], 1)
