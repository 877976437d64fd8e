import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from format_scenes import RAS, TABLE, in_world, three_lesions, write_prediction
from skimage import io

from nnunetv2_conflunet.formats.lesions import open_instances, read_lesions
from nnunetv2_conflunet.utilities.errors import InputError

SHEARED = np.array([[2.0, 0.3, 0.0, -30.0], [0.0, 1.0, 0.0, 12.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
REORIENTING = {"overwrite_image_reader_writer": "NibabelIOWithReorient"}


def read(folder, case="ms_1"):
    return read_lesions(open_instances(folder), case)


@pytest.mark.parametrize("dataset", [{}, REORIENTING], ids=["as stored", "read as RAS"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "ARI"])
def test_voxels_stay_where_they_are_in_the_axes_of_the_file(tmp_path, codes, dataset):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, codes=codes, **dataset)
    lesions = read(folder)
    stored = nibabel.load(folder / "instances" / "ms_1.nii.gz")
    np.testing.assert_array_equal(lesions.ids, np.asarray(stored.dataobj))
    np.testing.assert_allclose(lesions.affine, stored.affine, atol=1e-5)
    assert in_world(lesions.ids, lesions.affine) == in_world(three_lesions(), RAS)


def test_the_table_is_taken_over_as_it_is_written(tmp_path):
    lesions = read(write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": TABLE}))
    assert lesions.numbers == [3, 7, 12]
    assert lesions.table["volume_mm3"].tolist() == ["40", "20", "5"]
    assert lesions.table["mean_probability"].tolist() == ["0.75", "NaN", "0.5"]
    assert lesions.names == ["lesion 3", "lesion 7", "black hole 12"]


def test_rows_of_the_table_may_come_in_any_order(tmp_path):
    head, *rows = TABLE.splitlines(keepends=True)
    lesions = read(
        write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": head + "".join(rows[::-1])})
    )
    assert lesions.table["volume_mm3"].tolist() == ["40", "20", "5"]


def test_without_a_table_one_is_computed(tmp_path):
    lesions = read(write_prediction(tmp_path / "p", {"ms_1": three_lesions()}))
    assert lesions.numbers == [3, 7, 12]
    # 2 x 5 x 4, 1 x 4 x 5 and 1 + 2 x 2 voxels of 2 x 1 x 3 mm.
    assert lesions.table["volume_mm3"].astype(float).tolist() == [240, 120, 30]
    assert lesions.table["confluent"].tolist() == ["True", "True", "False"]
    assert lesions.names == ["lesion 3", "lesion 7", "lesion 12"]


def test_a_lesion_is_not_named_after_the_region_of_most_of_its_voxels(tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": TABLE}, labels=labels)
    assert read(folder).names == ["lesion 3", "lesion 7", "lesion 12"]


@pytest.mark.parametrize(
    "labels, name, value",
    [({"ms": 4}, "ms", ["4"] * 3), ({"edema": 1, "core": 2}, "lesion", None), ({"all": [1, 2]}, "lesion", None)],
)
def test_a_computed_table_names_a_label_only_where_there_is_one(tmp_path, labels, name, value):
    labels = {"background": 0, **labels, "ignore": 9}
    lesions = read(write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, labels=labels))
    assert lesions.names == [f"{name} {i}" for i in (3, 7, 12)]
    assert ("label" in lesions.table) == (value is not None)
    if value:
        assert lesions.table["label"].tolist() == value


def test_names_hold_no_sign_that_has_a_meaning_in_a_format(tmp_path):
    labels = {"background": 0, 'a "b"|c:d~e^f\n': 1, "x" * 80: 2}
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": TABLE}, labels=labels)
    assert read(folder).names == ["a  b  c d e f 3", "a  b  c d e f 7", "x" * 40 + " 12"]


@pytest.mark.parametrize("label", ["", "lesion", "1.0", "\N{SUPERSCRIPT TWO}"])
def test_a_label_that_is_no_number_names_nothing(tmp_path, label):
    tables = {"ms_1": TABLE.replace("3,1,40", f"3,{label},40")}
    assert read(write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables=tables)).names[0] == "lesion 3"


@pytest.mark.parametrize("table", [None, "id,label\n"])
def test_an_empty_map(tmp_path, table):
    tables = {"ms_1": table} if table else None
    lesions = read(write_prediction(tmp_path / "p", {"ms_1": np.zeros((4, 5, 6), np.uint8)}, tables=tables))
    assert (lesions.names, lesions.numbers, lesions.colors.shape) == ([], [], (0, 3))


@pytest.mark.parametrize(
    "table, message",
    [
        (TABLE.replace("12,2", "13,2"), r"ms_1.csv does not list the lesions of ms_1.nii.gz: they differ in 12, 13\."),
        (TABLE + "12,2,5,0.5,False\n", r"they differ in 3, 7, 12, 12"),
        (TABLE.replace("id,", "number,"), "has no column id"),
        (TABLE.replace("12,2", "twelve,2"), "has no column id with a whole number in each row"),
        (TABLE.replace("12,2", f"{10**20},2"), "has no column id with a whole number in each row"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_table_that_is_not_that_of_the_map_is_refused(tmp_path, table, message):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, tables={"ms_1": table})
    with pytest.raises(InputError, match=message):
        read(folder)


def test_a_plane_without_position_lies_where_itk_puts_its_image(tmp_path):
    folder = tmp_path / "p" / "instances"
    folder.mkdir(parents=True)
    (tmp_path / "p" / "dataset.json").write_text(json.dumps({"file_ending": ".png", "labels": {"background": 0}}))
    plane = np.zeros((6, 9), np.uint16)
    plane[1:3, 2:7], plane[3, 3:6] = 1, 2
    io.imsave(folder / "n_1.png", plane, check_contrast=False)
    lesions = read(tmp_path / "p", "n_1")
    assert lesions.ids.shape == (9, 6, 1) and not lesions.has_position
    image = sitk.ReadImage(str(folder / "n_1.png"))
    expected = {image.TransformIndexToPhysicalPoint((int(x), int(y))) for y, x in np.argwhere(plane == 2)}
    found = in_world(lesions.ids, lesions.affine)[2]
    assert {(-x / 1000, -y / 1000) for x, y, _ in found} == expected
    assert np.linalg.norm(lesions.affine[:3, :3], axis=0).tolist() == [1, 1, 1]


def test_a_plane_with_position_lies_there(tmp_path):
    folder = write_prediction(tmp_path / "p", {})
    image = sitk.GetImageFromArray(np.uint8([[0, 1, 1], [2, 2, 0]]))
    image.SetSpacing((0.5, 0.7))
    image.SetOrigin((3.0, -4.0))
    sitk.WriteImage(image, str(folder / "instances" / "n_1.nii.gz"))
    lesions = read(folder, "n_1")
    stored = nibabel.load(folder / "instances" / "n_1.nii.gz")
    np.testing.assert_allclose(lesions.affine[:3, [0, 1, 3]], stored.affine[:3, [0, 1, 3]], atol=1e-6)
    assert lesions.ids[..., 0].T.tolist() == [[0, 1, 1], [2, 2, 0]]


@pytest.mark.parametrize("dataset", [REORIENTING, {"overwrite_image_reader_writer": "NibabelIO"}])
def test_sheared_axes_are_kept_as_sform(tmp_path, dataset):
    folder = write_prediction(tmp_path / "p", {"ms_1": three_lesions()}, affine=SHEARED, **dataset)
    read(folder).write_nifti(tmp_path / "out.nii.gz", {})
    written = nibabel.load(tmp_path / "out.nii.gz")
    assert in_world(np.asarray(written.dataobj), written.affine) == in_world(three_lesions(), SHEARED)
    assert written.get_qform(coded=True)[1] == 0 and written.get_sform(coded=True)[1] == 1


def test_maps_are_found_in_a_fold_a_prediction_and_a_raw_dataset(tmp_path):
    for place in ("fold_0/validation/instances", "prediction/instances", "Dataset001_A/instancesTr", "plain"):
        (tmp_path / place).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(three_lesions(), RAS), tmp_path / place / "ms_1.nii.gz")
        top = tmp_path / place.partition("/")[0]
        assert open_instances(top).folder == tmp_path / place
        assert read(top).numbers == [3, 7, 12]


def test_segmentations_are_not_taken_for_instance_maps(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.uint8(three_lesions() > 0), RAS), tmp_path / "ms_1.nii.gz")
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(InputError, match="holds the segmentations of nnUNetv2_predict but no instance maps"):
        open_instances(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing is not a folder; give the output of nnUNetv2_predict"):
        open_instances(tmp_path / "nothing")
