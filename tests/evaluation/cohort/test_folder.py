"""Folders of files on disk: pairing, geometry, faults, parts, outputs."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import joblib
import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from skimage import io
from support import UNWRITABLE, unwritable

from nnunetv2_conflunet.commands import evaluate as command
from nnunetv2_conflunet.evaluation.cohort.lesions import COLUMNS
from nnunetv2_conflunet.utilities.errors import InputError, join_faults
from nnunetv2_conflunet.utilities.spreadsheets import read_csv

SPACING_XYZ = (1.0, 1.5, 2.0)


def save(path, ids_zyx, origin=(10.0, -20.0, 5.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), dtype=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(ids_zyx.astype(dtype))
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def boxes(*runs, shape=(12, 16, 20)):
    instances = np.zeros(shape, np.uint32)
    for i, box in runs:
        instances[tuple(slice(a, b) for a, b in box)] = i
    return instances


LARGE = ((1, 5), (1, 5), (1, 6))
TOUCHING = ((1, 5), (5, 8), (1, 6))
SINGLE = ((9, 10), (12, 13), (17, 18))


def evaluate(*arguments):
    args = command._parser().parse_args([str(argument) for argument in arguments])
    command.evaluate(args)
    output = args.o or args.prediction
    summary = json.loads((output / "summary_instances.json").read_text())
    return summary, pd.read_csv(output / "cases.csv"), pd.read_csv(output / "lesions.csv")


@pytest.fixture
def dataset(tmp_path):
    """Three cases; of MS_1 one of two touching lesions is found, MS_10 is perfect, MS_2 has no lesion at all."""
    reference, prediction = tmp_path / "Dataset001_MS" / "instancesTr", tmp_path / "out"
    two = boxes((1, LARGE), (2, TOUCHING))
    save(reference / "MS_1.nii.gz", two)
    save(prediction / "instances" / "MS_1.nii.gz", boxes((7, LARGE)))
    save(reference / "MS_10.nii.gz", two)
    save(prediction / "instances" / "MS_10.nii.gz", two)
    save(reference / "MS_2.nii.gz", boxes())
    save(prediction / "instances" / "MS_2.nii.gz", boxes())
    (prediction / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    return reference, prediction


def test_files_are_paired_by_their_whole_id(dataset, capsys):
    summary, cases, _ = evaluate(*dataset, "-np", 1)
    assert cases["case"].tolist() == ["MS_1", "MS_10", "MS_2"]
    assert cases["Recall"].tolist()[:2] == [0.5, 1.0] and np.isnan(cases["Recall"][2])
    assert summary["mean"]["Recall"] == 0.75 and summary["n"]["Recall"] == 2 and summary["n"]["TP"] == 3
    assert summary["std"]["Recall"] == pytest.approx(np.std([0.5, 1], ddof=1))
    assert summary["pooled"]["Recall"] == 0.75 and summary["pooled"]["n_CLU"] == 4
    assert summary["pooled"]["Recall_CLU"] == 0.75 and summary["pooled"]["PQ"] == pytest.approx(3 / 3.5)
    assert [row["case"] for row in summary["metric_per_case"]] == ["MS_1", "MS_10", "MS_2"]
    assert [i["iou_threshold"] for i in summary["sweep"]] == [i / 10 for i in range(1, 10)]
    assert "75.0 ± 35.4" in capsys.readouterr().out


def test_lesion_table(dataset):
    _, _, lesions = evaluate(*dataset, "-np", 1)
    assert tuple(lesions.columns) == COLUMNS
    first = lesions[lesions["case"] == "MS_1"].set_index(["side", "id"])
    found, missed, predicted = (first.loc[key] for key in (("reference", 1), ("reference", 2), ("prediction", 7)))
    assert (found["status"], missed["status"], predicted["status"]) == ("TP", "FN", "TP")
    assert (found["match_id"], found["match_iou"], predicted["match_id"]) == (7, 1, 1)
    assert np.isnan(missed["match_id"]) and np.isnan(missed["best_overlap_id"])
    # 4 x 4 x 5 voxels of 3 mm3; voxels 1 to 5, 1 to 4, 1 to 4 along x, y, z; LPS to RAS turns x and y around.
    assert found["volume_mm3"] == predicted["match_volume_mm3"] == 240
    centroid = [found[f"centroid_{axis}_mm"] for axis in "xyz"]
    assert centroid == pytest.approx([-(10 + 3), -(-20 + 2.5 * 1.5), 5 + 2.5 * 2])
    assert found["confluent"] and missed["confluent"] and not predicted["confluent"] and predicted["answers_CLU"]


def test_merges_and_splits_are_named(tmp_path):
    both = ((1, 5), (1, 8), (1, 6))
    save(tmp_path / "a" / "case.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
    save(tmp_path / "b" / "case.nii.gz", boxes((5, both)))
    _, _, lesions = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert lesions["merged"].all() and not lesions["split"].any()
    # The first reference has 240 of the 420 mm3 of the prediction.
    assert lesions.set_index(["side", "id"])["n_held"].to_dict() == {
        ("reference", 1): 1,
        ("reference", 2): 0,
        ("prediction", 5): 2,
    }
    assert lesions.set_index(["side", "id"])["held_by_id"].to_dict() == {
        ("reference", 1): 5,
        ("reference", 2): 5,
        # More than half of it lies in the first reference.
        ("prediction", 5): 1,
    }
    _, _, lesions = evaluate(tmp_path / "b", tmp_path / "a", "-np", 1)
    assert lesions["split"].all() and not lesions["merged"].any()


def test_small_lesions_are_removed_on_both_sides(tmp_path):
    save(tmp_path / "a" / "case.nii.gz", boxes((1, LARGE), (2, SINGLE)))
    save(tmp_path / "b" / "case.nii.gz", boxes((1, LARGE), (2, ((9, 11), (1, 2), (1, 2)))))
    summary, _, lesions = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert len(lesions) == 2 and summary["mean"]["DSC"] == 1
    # One voxel of 3 mm3 and two of them.
    assert summary["removed"]["reference"]["removed_mm3"] == 3
    assert summary["removed"]["prediction"] == {"n_instances_removed": 1, "n_voxels_removed": 2, "removed_mm3": 6}
    summary, _, lesions = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1, "--no_size_filter")
    assert len(lesions) == 4 and summary["removed"] == {} and summary["mean"]["FN"] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.uint32])
def test_ids_above_16_bits_and_float_files(tmp_path, dtype):
    save(tmp_path / "a" / "case.nii.gz", boxes((65_537, LARGE), (1, TOUCHING)), dtype=dtype)
    save(tmp_path / "b" / "case.nii.gz", boxes((70_000, LARGE), (2, TOUCHING)), dtype=dtype)
    summary, _, lesions = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert summary["mean"]["PQ_CLU"] == 1 and set(lesions["id"]) == {1, 2, 65_537, 70_000}


def test_images_of_natural_scenes_are_planes(tmp_path):
    reference = np.zeros((20, 30), np.uint8)
    reference[2:8, 3:9], reference[8:12, 9:15] = 1, 2
    for name, image in (("a", reference), ("b", np.roll(reference, 1, axis=1))):
        (tmp_path / name).mkdir()
        io.imsave(tmp_path / name / "case.png", image, check_contrast=False)
    _, cases, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    # Squares of 6 x 6 and 4 x 6 shifted by one: IoU 5 / 7 each; they touch at a corner.
    assert cases["SQ"][0] == pytest.approx(5 / 7) and cases["n_CLU"][0] == 2
    assert cases["load_reference_mm3"][0] == 36 + 24


class TestMissing:
    def test_is_an_error_that_lists_the_cases(self, dataset):
        (dataset[1] / "instances" / "MS_1.nii.gz").unlink()
        with pytest.raises(InputError, match=r"1 of 3 cases have no prediction: MS_1\. Predict them"):
            evaluate(*dataset, "-np", 1)
        assert not (dataset[1] / "summary_instances.json").exists()

    def test_worst_is_an_empty_prediction(self, dataset):
        (dataset[1] / "instances" / "MS_1.nii.gz").unlink()
        summary, cases, _ = evaluate(*dataset, "-np", 1, "--missing", "worst")
        assert cases["Recall"].tolist()[:2] == [0, 1] and summary["missing"] == ["MS_1"]
        assert "scored as empty predictions: MS_1" in summary["notes"][0]

    def test_chill_leaves_them_out_and_says_so(self, dataset, capsys):
        (dataset[1] / "instances" / "MS_1.nii.gz").unlink()
        summary, cases, _ = evaluate(*dataset, "-np", 1, "--chill")
        assert cases["case"].tolist() == ["MS_10", "MS_2"] and summary["n_cases"] == 2
        assert "left out of every number: MS_1" in capsys.readouterr().out.replace("\n", " ")

    def test_chill_needs_one_prediction_at_least(self, dataset):
        for file in (dataset[1] / "instances").iterdir():
            file.unlink()
        with pytest.raises(InputError, match=r"None of the 3 cases has a prediction \(MS_1, MS_10, MS_2\)"):
            evaluate(*dataset, "-np", 1, "--chill")

    def test_pooled_ratios_without_any_prediction_are_those_of_an_empty_one(self, dataset):
        for file in (dataset[1] / "instances").iterdir():
            file.unlink()
        pooled = evaluate(*dataset, "-np", 1, "--missing", "worst")[0]["pooled"]
        for suffix in ("", "_CLU"):
            assert [pooled[metric + suffix] for metric in ("Precision", "Recall", "F1", "PQ")] == [0] * 4
            assert np.isnan(pooled[f"SQ{suffix}"])

    def test_extra_predictions_are_named(self, dataset):
        (dataset[0] / "MS_10.nii.gz").unlink()
        summary, cases, _ = evaluate(*dataset, "-np", 1)
        assert cases["case"].tolist() == ["MS_1", "MS_2"] and summary["extra"] == ["MS_10"]
        assert "1 predictions have no reference and are not evaluated: MS_10." in summary["notes"]


def rename(folder, name):
    (folder / "MS_1.nii.gz").rename(folder / name)


def link_to_nothing(folder, _):
    (folder / "MS_1.nii.gz").unlink()
    (folder / "MS_1.nii.gz").symlink_to(folder / "absent.nii.gz")


def make_folder(folder, _):
    (folder / "MS_1.nii.gz").unlink()
    (folder / "MS_1.nii.gz").mkdir()


HIDDEN = [
    (rename, "MS_1.NII.GZ", "ends with .NII.GZ"),
    (rename, "MS_1.nii", "ends with .nii"),
    (link_to_nothing, "MS_1.nii.gz", "a link to nothing"),
    (make_folder, "MS_1.nii.gz", "a folder"),
]
NOT_TAKEN = "holds entries that look like images and are skipped, since cases are files that end with .nii.gz:"


class TestNoCaseVanishes:
    @pytest.mark.parametrize("sides", [(0,), (0, 1)])
    @pytest.mark.parametrize("hide, name, why", HIDDEN)
    def test_a_reference_that_cannot_be_taken_is_an_error(self, dataset, hide, name, why, sides):
        for side in sides:
            hide((dataset[0], dataset[1] / "instances")[side], name)
        message = re.escape(f"instancesTr {NOT_TAKEN} {name} ({why}). Rename")
        with pytest.raises(InputError, match=message):
            evaluate(*dataset, "-np", 1)

    @pytest.mark.parametrize("hide, name, why", HIDDEN)
    def test_a_prediction_that_cannot_be_taken_is_named_wherever_it_is_missing(self, dataset, capsys, hide, name, why):
        hide(dataset[1] / "instances", name)
        message = r"no prediction: MS_1\. .*" + re.escape(f"instances {NOT_TAKEN} {name} ({why}).")
        with pytest.raises(InputError, match=message):
            evaluate(*dataset, "-np", 1)
        summary, cases, _ = evaluate(*dataset, "-np", 1, "--chill", "-o", dataset[0].parent / "o")
        assert cases["case"].tolist() == ["MS_10", "MS_2"]
        assert any(f"{name} ({why})" in note for note in summary["notes"])
        assert f"{name} ({why})" in capsys.readouterr().out.replace("\n", " ")

    def test_previews_among_the_maps_are_named_and_nothing_more(self, dataset):
        without, _, _ = evaluate(*dataset, "-np", 1)
        for folder in (dataset[0], dataset[1] / "instances"):
            (folder / "MS_1.png").touch()
            (folder / "._MS_1.nii.gz").write_bytes(b"macOS")
        summary, _, _ = evaluate(*dataset, "-np", 1)
        assert summary["notes"] == [
            f"{folder} {NOT_TAKEN} MS_1.png (ends with .png)." for folder in (dataset[0], dataset[1] / "instances")
        ]
        np.testing.assert_equal(summary | {"notes": []}, without | {"notes": []})

    def test_none_left_is_an_error(self, dataset):
        (dataset[1] / "dataset.json").write_text('{"file_ending": ".nii"}')
        with pytest.raises(
            InputError, match=r"holds no file that ends with \.nii; .*MS_1\.nii\.gz \(ends with \.nii\.gz\)"
        ):
            evaluate(*dataset, "-np", 1)

    def test_a_reference_that_the_validation_does_not_expect_is_no_error(self, dataset, tmp_path):
        validation = tmp_path / "trainer__plans__3d_fullres" / "fold_0" / "validation"
        save(validation / "MS_10.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
        (validation / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
        entries = [{"prediction_file": "/elsewhere/MS_10.nii.gz"}]
        (validation / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
        rename(dataset[0], "MS_1.NII.GZ")
        _, cases, _ = evaluate(dataset[0], validation, "-np", 1)
        assert cases["case"].tolist() == ["MS_10"]
        entries[0]["prediction_file"] = "/elsewhere/MS_1.nii.gz"
        (validation / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
        with pytest.raises(InputError, match=r"no instance map of the validation cases MS_1\. .*MS_1\.NII\.GZ"):
            evaluate(dataset[0], validation, "-np", 1)


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"file_ending": ".nii.gz",}', r"dataset\.json is not valid JSON"),
        ('{"training": []}', "the format of nnU-Net v1"),
        ("[]", "has no 'file_ending'; it is not the dataset.json"),
        ('{"file_ending": ".dcm"}', r"no reader for files that end with \.dcm"),
    ],
)
def test_a_dataset_json_that_cannot_be_used_is_named(dataset, content, message):
    (dataset[1] / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        evaluate(*dataset, "-np", 1)


@pytest.mark.parametrize("kind", UNWRITABLE)
@pytest.mark.parametrize("options", [(), ("-num_parts", 2, "-part_id", 1)])
def test_a_place_that_cannot_be_written_is_named_before_the_work(dataset, tmp_path, monkeypatch, kind, options):
    monkeypatch.setattr(command, "evaluate_pairs", None)
    with unwritable(kind, tmp_path) as place, pytest.raises(InputError, match=UNWRITABLE[kind]):
        evaluate(*dataset, "-np", 1, "-o", place, *options)


def test_names_are_no_formulas_in_the_tables_and_the_true_ones_when_read(tmp_path):
    names = ["=1+2", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "'quoted'", "NA", "001", "a=1"]
    for folder in ("a", "b"):
        for name in names:
            save(tmp_path / folder / f"{name}.nii.gz", boxes((1, LARGE)))
    summary, _, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert [row["case"] for row in summary["metric_per_case"]] == sorted(names)
    for table in ("cases.csv", "lesions.csv"):
        with open(tmp_path / "b" / table, newline="", encoding="utf-8") as file:
            written = {row["case"] for row in csv.DictReader(file)}
        # By hand: an apostrophe before what would be run, and before what would otherwise be read as such a one.
        assert written == {
            *("'=1+2", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "''=1"),
            *("'quoted'", "NA", "001", "a=1"),
        }
        assert set(read_csv(tmp_path / "b" / table)["case"]) == set(names)


def test_the_holder_is_named_where_another_lesion_overlaps_better(tmp_path):
    # Of the first reference, 5 of 8 columns lie in a prediction that covers much else, 3 in one that has nothing else.
    first, second = ((1, 5), (0, 8), (1, 6)), ((1, 5), (8, 16), (1, 6))
    save(tmp_path / "a" / "case.nii.gz", boxes((1, first), (2, second)))
    save(tmp_path / "b" / "case.nii.gz", boxes((3, ((1, 12), (0, 16), (1, 10))), (4, ((1, 5), (0, 3), (1, 6)))))
    _, _, lesions = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    reference = lesions[lesions["side"] == "reference"].set_index("id")
    assert reference["held_by_id"].tolist() == [3, 3] and reference["merged"].all()
    assert reference["best_overlap_id"].tolist() == [4, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": (11.0, -20.0, 5.0)}, r"MS_1: .*does not lie on the grid of .*origin \(-11\.0, 20\.0, 5\.0\) mm"),
        ({"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}, "MS_1: .*direction"),
        ({"shape": (12, 16, 21)}, r"MS_1: .*size \(12, 16, 21\) instead of \(12, 16, 20\)"),
        ({"truncate": True}, "MS_1: .*MS_1.nii.gz cannot be read: it is damaged or cut off"),
        ({"fraction": True}, "MS_1: .*holds fractional values in 80 voxels"),
    ],
)
def test_faults_of_a_file_name_the_case(dataset, change, message):
    path = dataset[1] / "instances" / "MS_1.nii.gz"
    ids = boxes((1, LARGE), shape=change.pop("shape", (12, 16, 20)))
    if change.pop("fraction", False):
        save(path, ids * 0.5, dtype=np.float32)
    elif change.pop("truncate", False):
        path.write_bytes(path.read_bytes()[:60])
    else:
        save(path, ids, **change)
    with pytest.raises(InputError, match=message):
        evaluate(*dataset, "-np", 1)
    assert not (dataset[1] / "summary_instances.json").exists()


def test_all_faulty_cases_are_named_at_once(dataset):
    for case in ("MS_1", "MS_2"):
        save(dataset[1] / "instances" / f"{case}.nii.gz", boxes(), origin=(0, 0, 0))
    with pytest.raises(InputError, match=r"2 cases: MS_1: .* \| MS_2: "):
        evaluate(*dataset, "-np", 1)


def test_a_flipped_nifti_with_the_same_array_is_refused(dataset):
    path = dataset[1] / "instances" / "MS_10.nii.gz"
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0] *= -1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)
    with pytest.raises(InputError, match=r"MS_10: .*direction"):
        evaluate(*dataset, "-np", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere is not a folder"),
        (("--iou_threshold", "1.2"), "threshold is 1.2"),
        (("--volume_bins_mm3", "100", "30"), "volume bins"),
        (("--min_volume_mm3", "-1"), "smallest volume is -1"),
        (("-num_parts", "2", "-part_id", "2"), "no part 2 of 2"),
        (("-djfile", "absent.json"), "absent.json does not exist"),
        (("-num_parts", "2", "--merge"), "lacks the parts 0, 1 of 2"),
    ],
)
def test_options_are_checked_before_any_work(dataset, arguments, message):
    folders = (dataset[0], arguments[0]) if arguments[0] == "nowhere" else (*dataset, *arguments)
    with pytest.raises(InputError, match=message):
        evaluate(*folders)


def test_folders_without_a_common_format(tmp_path):
    save(tmp_path / "a" / "case.nii.gz", boxes())
    save(tmp_path / "b" / "case.nrrd", boxes())
    with pytest.raises(InputError, match="no file format of nnU-Net in common"):
        evaluate(tmp_path / "a", tmp_path / "b")


def test_semantic_masks_are_noted(tmp_path):
    save(tmp_path / "a" / "case.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
    save(tmp_path / "b" / "case.nii.gz", boxes((1, LARGE), (1, TOUCHING)))
    summary, _, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert any("Every prediction has 1 as its only id" in note for note in summary["notes"])


@pytest.mark.parametrize(
    "content", ["{}", "[]", *(f'{{"metric_per_case": {cases}}}' for cases in ("[]", "[{}]", "[3]"))]
)
def test_the_summary_of_something_else_in_a_validation_folder_is_named(dataset, tmp_path, content):
    validation = tmp_path / "validation"
    save(validation / "MS_10.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
    (validation / "summary.json").write_text(content)
    with pytest.raises(InputError, match=r"summary\.json does not name the cases of a validation by nnU-Net"):
        evaluate(dataset[0], validation, "-np", 1)


def test_the_cases_of_a_validation_folder_are_expected(dataset, tmp_path):
    model = tmp_path / "trainer__plans__3d_fullres"
    validation = model / "fold_0" / "validation"
    save(validation / "instances" / "MS_10.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
    (model / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    entries = [{"prediction_file": f"/elsewhere/{case}.nii.gz"} for case in ("MS_10",)]
    (validation / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
    for folder in (validation, validation / "instances", model / "fold_0"):
        _, cases, _ = evaluate(dataset[0], folder, "-o", tmp_path / "o", "-np", 1)
        assert cases["case"].tolist() == ["MS_10"]
    entries.append({"prediction_file": "/elsewhere/MS_1.nii.gz"})
    (validation / "summary.json").write_text(json.dumps({"metric_per_case": entries}))
    with pytest.raises(InputError, match="1 of 2 cases have no prediction: MS_1"):
        evaluate(dataset[0], validation, "-np", 1)


def test_parts_merge_to_the_files_of_a_single_run(dataset, tmp_path):
    evaluate(*dataset, "-np", 1, "-o", tmp_path / "whole")
    for part in (1, 0):
        command.evaluate(
            command._parser().parse_args(
                [
                    *map(str, dataset),
                    "-np",
                    "1",
                    "-o",
                    str(tmp_path / "parts"),
                    "-num_parts",
                    "2",
                    "-part_id",
                    str(part),
                ]
            )
        )
    evaluate(*dataset, "-o", tmp_path / "parts", "-num_parts", 2, "--merge")
    for name in ("summary_instances.json", "cases.csv", "lesions.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    shutil.copytree(dataset[1], tmp_path / "another_method")
    with pytest.raises(InputError, match=r"part with case MS_\d was made from .*, not from .*another_method.*MS_"):
        evaluate(dataset[0], tmp_path / "another_method", "-o", tmp_path / "parts", "-num_parts", 2, "--merge")
    with pytest.raises(InputError, match="was made with a different iou_threshold"):
        evaluate(*dataset, "-o", tmp_path / "parts", "-num_parts", 2, "--merge", "--iou_threshold", "0.2")
    (dataset[0] / "MS_2.nii.gz").unlink()
    with pytest.raises(InputError, match="the folders contain different cases: MS_2"):
        evaluate(*dataset, "-o", tmp_path / "parts", "-num_parts", 2, "--merge")


def test_another_joblib_backend_takes_the_work(dataset, tmp_path):
    one, _, _ = evaluate(*dataset, "-np", 1, "-o", tmp_path / "one")
    with joblib.parallel_config(backend="threading"):
        two, _, _ = evaluate(*dataset, "-np", 2, "-o", tmp_path / "two")
    np.testing.assert_equal(one, two)


def test_folders_without_any_lesion(tmp_path):
    save(tmp_path / "a" / "case.nii.gz", boxes())
    summary, _, lesions = evaluate(tmp_path / "a", tmp_path / "a", "-np", 1)
    assert lesions.empty and tuple(lesions.columns) == COLUMNS
    assert np.isnan(summary["mean"]["F1"]) and summary["n"]["F1"] == 0


@pytest.mark.slow
def test_the_command_runs_without_nnunet_variables(dataset):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    code = "from nnunetv2_conflunet.commands.evaluate import main; main()"
    run = [sys.executable, "-c", code, *map(str, dataset)]
    done = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Recall_CLU (%)" in done.stdout
    (dataset[1] / "instances" / "MS_1.nii.gz").unlink()
    failed = subprocess.run(run, env=environment, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("Error: 1 of 3 cases have no prediction: MS_1.")
    assert "Traceback" not in failed.stderr


def test_undefined_means_are_one_dash_and_distances_have_two_decimals(tmp_path, capsys):
    pytest.importorskip("surface_distance")
    for name in ("[a]", "b"):
        save(tmp_path / name / "case.nii.gz", boxes((1, LARGE)))
    evaluate(tmp_path / "b", tmp_path / "[a]", "-np", 1, "--surface")
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.count("│") == 5}
    assert "– ±" not in rows["Recall_CLU (%)"] and rows["Recall_CLU (%)"].count("–") == 2
    assert "0.00 ± –" in rows["HD95_mm"]


def save_plane(folder, *squares):
    """A PNG of squares: first row, first column and side in pixels."""
    image = np.zeros((40, 50), np.uint8)
    for i, (row, column, side) in enumerate(squares, start=1):
        image[row : row + side, column : column + side] = i
    folder.mkdir(parents=True, exist_ok=True)
    io.imsave(folder / "case.png", image, check_contrast=False)


def test_output_for_planes_speaks_of_areas_and_cases(tmp_path, capsys):
    save_plane(tmp_path / "a", (2, 2, 8), (20, 20, 5))
    save_plane(tmp_path / "b", (2, 2, 8), (30, 30, 3))
    summary, _, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert summary["dim"] == 2
    assert [row["stratum"] for row in summary["strata"]["volume"]][:2] == ["< 30 mm2", "30 to 100 mm2"]
    out = capsys.readouterr().out
    assert "instances below 0 mm2 and 3 mm" in " ".join(out.split())
    assert "load_reference_mm2" in out and "lesions by area" in out
    assert not any(word in out for word in ("mm3", "volume", "patient"))


def test_a_smallest_area_removes_specks_from_planes(tmp_path):
    save_plane(tmp_path / "a", (2, 2, 8), (20, 20, 5))
    save_plane(tmp_path / "b", (2, 2, 8), (30, 30, 3))
    for area, expected in ((9, (2, 2)), (10, (2, 1)), (26, (1, 1))):
        _, cases, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1, "--min_area_mm2", area)
        assert (cases["n_reference"][0], cases["n_prediction"][0]) == expected
    _, cases, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1, "--min_area_mm2", 99, "--no_size_filter")
    assert (cases["n_reference"][0], cases["n_prediction"][0]) == (2, 2)


def test_a_spacing_at_which_no_lesion_can_stay_is_said_first(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "case.nii.gz", boxes((1, LARGE), (2, TOUCHING)))
        image = sitk.ReadImage(tmp_path / name / "case.nii.gz")
        image.SetSpacing((0.0003, 0.0003, 0.001))
        sitk.WriteImage(image, tmp_path / name / "case.nii.gz")
    with pytest.raises(InputError, match=r"case: The image is 0.012 x 0.0048 x 0.006 mm large, and the size filter"):
        evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    _, cases, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1, "--no_size_filter")
    assert cases["F1"][0] == 1


def test_cases_with_the_same_fault_are_named_together():
    faults = {"a": "is broken", "b": "is short", "c": "is broken"}
    assert join_faults(faults) == "3 cases: a, c: is broken | b: is short"
    assert join_faults({"a": "is broken"}) == "a: is broken"


def test_references_that_are_all_too_small_are_noted(tmp_path, capsys):
    for name in ("a", "b"):
        save(tmp_path / name / "case.nii.gz", boxes((1, SINGLE)))
    summary, cases, _ = evaluate(tmp_path / "a", tmp_path / "b", "-np", 1)
    assert np.isnan(cases["F1"][0])
    (note,) = summary["notes"]
    assert note.startswith("The size filter removed every lesion of the references (1). Lower its limits")
    assert note[:60] in capsys.readouterr().out.replace("\n", " ")


def test_parts_of_an_earlier_version_merge(dataset, tmp_path):
    evaluate(*dataset, "-np", 1, "-o", tmp_path / "whole")
    out = tmp_path / "parts"
    for part in (0, 1):
        arguments = [*map(str, dataset), "-np", "1", "-o", str(out), "-num_parts", "2", "-part_id", str(part)]
        command.evaluate(command._parser().parse_args(arguments))
        file = out / "evaluation_parts" / f"part_{part}_of_2.json"
        content = json.loads(file.read_text())
        del content["settings"]["min_area_mm2"]
        content["cases"] = [{k: v for k, v in case.items() if k != "dim"} for case in content["cases"]]
        file.write_text(json.dumps(content))
    evaluate(*dataset, "-o", out, "-num_parts", 2, "--merge")
    assert (out / "cases.csv").read_text() == (tmp_path / "whole" / "cases.csv").read_text()


@pytest.mark.parametrize(
    "content",
    ["[]", "3", '{"settings": 3, "cases": []}', '{"settings": {}, "cases": 3}', '{"settings": {}, "cases": [{}]}'],
)
def test_a_part_of_another_form_is_named(dataset, content):
    folder = dataset[1] / "evaluation_parts"
    folder.mkdir()
    for part in range(2):
        (folder / f"part_{part}_of_2.json").write_text(content)
    with pytest.raises(InputError, match=r"part_0_of_2\.json is not a part of an evaluation by this command"):
        evaluate(*dataset, "-num_parts", 2, "--merge")
