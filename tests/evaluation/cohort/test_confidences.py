"""Tables beside the maps: what is read, what is refused, and what the files of an evaluation hold."""

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from nnunetv2_conflunet.commands import compare as compare_command
from nnunetv2_conflunet.commands import evaluate as command
from nnunetv2_conflunet.evaluation.cohort.confidences import read_confidences
from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.report.report import make_report
from nnunetv2_conflunet.utilities.errors import InputError

CUBE = 4


def save(path, *ids):
    """A map of cubes of 4 x 4 x 4 voxels of 1 mm3 in a row, 6 voxels apart; 0 leaves a place empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    instances = np.zeros((6, 6, 40), np.uint16)
    for place, i in enumerate(ids):
        instances[1 : 1 + CUBE, 1 : 1 + CUBE, 6 * place + 1 : 6 * place + 1 + CUBE] = i
    sitk.WriteImage(sitk.GetImageFromArray(instances), str(path))


def table(path, confidences):
    pd.DataFrame({"id": list(confidences), "confidence": list(confidences.values())}).to_csv(path, index=False)


@pytest.fixture
def folders(tmp_path):
    """Two patients: two lesions, of which the surest prediction finds one; and no lesion, one false prediction."""
    reference, prediction = tmp_path / "instancesTs", tmp_path / "out" / "instances"
    save(reference / "a.nii.gz", 1, 2)
    save(prediction / "a.nii.gz", 7, 0, 4)
    table(prediction / "a.csv", {4: 0.3, 7: 0.9})
    save(reference / "b.nii.gz")
    save(prediction / "b.nii.gz", 0, 0, 0, 0, 3)
    table(prediction / "b.csv", {3: 0.6})
    return reference, prediction


def evaluate(*arguments):
    args = command._parser().parse_args([*map(str, arguments), "-np", "1"])
    command.evaluate(args)
    return json.loads(((args.o or args.prediction) / "summary_instances.json").read_text())


def test_froc_and_average_precision_by_hand(folders, tmp_path, capsys):
    found = evaluate(*folders, "-o", tmp_path / "e", "--froc")["detection"]
    metrics = {name: row["value"] for name, row in found["metrics"].items()}
    # 0.9 finds one of two lesions; 0.6 and 0.3 are false, half a false positive a patient each.
    assert [metrics[f"Sensitivity@{rate}"] for rate in ("1/8", "1/2", "8")] == [0.5, 0.5, 0.5]
    assert metrics["FROC"] == metrics["AP@0.1"] == metrics["AP@0.5"] == 0.5
    assert np.isnan(float(metrics["FROC_CLU"] or "nan"))
    assert (found["n_patients"], found["iou_threshold"]) == (2, 0.1)
    printed = capsys.readouterr().out
    assert "Detection over confidence" in printed and "FROC: mean sensitivity at 1/8 to 8" in " ".join(printed.split())


@pytest.mark.parametrize("parts", [(), ("-num_parts", 2)])
def test_results_never_replace_the_lesion_table_of_a_case(folders, tmp_path, parts):
    reference, prediction = folders
    for folder in folders:
        (folder / "a.nii.gz").rename(folder / "lesions.nii.gz")
    (prediction / "a.csv").rename(prediction / "lesions.csv")
    before = (prediction / "lesions.csv").read_bytes()
    with pytest.raises(InputError, match=r"lesions\.csv is the place of a case's lesion table; .* with -o"):
        evaluate(*folders, *parts)
    assert (prediction / "lesions.csv").read_bytes() == before
    # Beside the instances and elsewhere there is room.
    assert "metrics" in evaluate(reference, prediction.parent)["detection"]
    assert "metrics" in evaluate(*folders, "-o", tmp_path / "e")["detection"]


def test_a_table_without_use_is_named_with_the_remedy(folders, tmp_path, capsys):
    _, prediction = folders
    (prediction / "a.csv").unlink()
    pd.read_csv(prediction / "b.csv").drop(columns="confidence").to_csv(prediction / "b.csv", index=False)
    with pytest.raises(InputError) as error:
        evaluate(*folders, "-o", tmp_path / "e", "--froc")
    assert "a: there is no lesion table beside the map" in str(error.value)
    assert "b: the lesion table has no column confidence, only id" in str(error.value)
    assert "nnUNetv2_conflunet_instantiate --overwrite does, from a prediction made with --save_prob" in str(
        error.value
    )
    assert not (tmp_path / "e").exists()
    # Without the option the rest is evaluated, and what is left out is said.
    summary = evaluate(*folders, "-o", tmp_path / "e")
    assert "metrics" not in summary["detection"] and summary["notes"] == []
    printed = " ".join(capsys.readouterr().out.split())
    assert "Note: FROC and AP are left out. 2 cases: a: there is no lesion table" in printed


def test_one_case_without_a_table_leaves_all_out(folders, tmp_path):
    (folders[1] / "b.csv").unlink()
    stored = evaluate(*folders, "-o", tmp_path / "e")["detection"]
    assert stored["left_out"].startswith("FROC and AP are left out. b: there is no lesion table")


def test_other_results_are_those_without_tables(folders, tmp_path):
    with_tables = evaluate(*folders, "-o", tmp_path / "with")
    for name in "ab":
        (folders[1] / f"{name}.csv").unlink()
    without = evaluate(*folders, "-o", tmp_path / "without")
    for file in ("cases.csv", "lesions.csv"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    for summary in (with_tables, without):
        del summary["detection"]
        for case in summary["metric_per_case"]:
            del case["detection"]
    assert json.dumps(with_tables) == json.dumps(without)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("id,confidence\n7,0.5\n7,0.6\n4,0.1\n", "lists a lesion twice"),
        ("", "cannot be read"),
        ("volume\n3\n", "no column id, confidence, only volume"),
        ("number,confidence\n7,0.5\n", "no column id, only number, confidence"),
        ("id;confidence\n7;0.5\n", "no column id, confidence, only id;confidence"),
    ],
)
def test_broken_tables(tmp_path, text, fault):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=fault):
        read_confidences(tmp_path / "a.csv")


@pytest.mark.parametrize("rows, lesions", [("7,\n4,0.5\n", "7"), ("7,high\n4,inf\n", "4, 7"), ("4,NaN\n7,0.9\n", "4")])
def test_a_lesion_without_a_confidence_is_named(folders, tmp_path, rows, lesions):
    (folders[1] / "a.csv").write_text("id,confidence\n" + rows)
    with pytest.raises(InputError, match=f"a: the lesion table has no finite confidence of the lesions {lesions} of"):
        evaluate(*folders, "-o", tmp_path / "e", "--froc")


@pytest.mark.parametrize("rows", ["9,\n", ",\n", "9,NaN\n,\n"])
def test_a_row_of_no_lesion_that_counts_needs_no_confidence(folders, tmp_path, rows):
    whole = evaluate(*folders, "-o", tmp_path / "e", "--froc")["detection"]
    # Of a lesion below the size filter, and what a spreadsheet program leaves of an empty line.
    small = sitk.ReadImage(str(folders[1] / "a.nii.gz"))
    small[0, 0, 0] = 9
    sitk.WriteImage(small, str(folders[1] / "a.nii.gz"))
    with open(folders[1] / "a.csv", "a", encoding="utf-8") as file:
        file.write(rows)
    assert json.dumps(evaluate(*folders, "-o", tmp_path / "f", "--froc")["detection"]) == json.dumps(whole)


def test_a_table_of_another_map_is_named(folders, tmp_path):
    table(folders[1] / "a.csv", {1: 0.3, 7: 0.9})
    with pytest.raises(InputError, match="a: the lesion table lacks the lesions 4 of the map"):
        evaluate(*folders, "-o", tmp_path / "e", "--froc")
    assert not (tmp_path / "e" / "summary_instances.json").exists()


def test_a_missing_prediction_is_a_patient_without_candidates(folders, tmp_path):
    for ending in ("nii.gz", "csv"):
        (folders[1] / f"b.{ending}").unlink()
    found = evaluate(*folders, "-o", tmp_path / "e", "--froc", "--missing", "worst")["detection"]
    assert found["n_patients"] == 2 and found["metrics"]["Sensitivity@1/2"]["value"] == 0.5


def test_parts_carry_the_confidences(folders, tmp_path):
    whole = evaluate(*folders, "-o", tmp_path / "whole")
    for part in (0, 1):
        options = ["-o", tmp_path / "parts", "-num_parts", 2, "-part_id", part, "-np", 1]
        command.evaluate(command._parser().parse_args([*map(str, folders), *map(str, options)]))
    assert json.dumps(evaluate(*folders, "-o", tmp_path / "parts", "-num_parts", 2, "--merge")) == json.dumps(whole)


def compare(capsys, *arguments):
    capsys.readouterr()
    compare_command.compare(compare_command._parser().parse_args([str(argument) for argument in arguments]))
    return capsys.readouterr().out


def test_comparison_and_report(folders, tmp_path, capsys):
    evaluate(*folders, "-o", tmp_path / "one")
    # The second method's false predictions are surer than its true one.
    table(folders[1] / "a.csv", {4: 0.95, 7: 0.2})
    evaluate(*folders, "-o", tmp_path / "two")
    text = compare(capsys, tmp_path / "one", tmp_path / "two", "--metrics", "F1", "-o", tmp_path / "c")
    assert "## Detection over confidence" in text
    rows = pd.read_csv(tmp_path / "c" / "comparison.csv").set_index("metric")
    assert rows.loc["F1", "difference"] == 0
    # 0.5 against 0 at 1/8, 1/4 and 1/2 of a false positive, and the same 0.5 from 1 on.
    assert rows.loc["FROC", "difference"] == pytest.approx(0.5 * 3 / 7)
    # Precision 1 against 1 / 3 at a sensitivity of 0.5.
    assert rows.loc["AP@0.1", "difference"] == pytest.approx(0.5 - 0.5 / 3)
    assert np.isnan(rows.loc["FROC", "p_t_holm"]) and rows.loc["F1", "p_t_holm"] == 1
    page = make_report(load_methods([tmp_path / "one", tmp_path / "two"]), n_cases=0)
    assert "Detection over confidence" in page and "Paired differences of detection" in page
    assert "<td>FROC</td>" in page


def test_a_comparison_says_why_it_has_no_froc(folders, tmp_path, capsys):
    evaluate(*folders, "-o", tmp_path / "one")
    (folders[1] / "b.csv").unlink()
    evaluate(*folders, "-o", tmp_path / "two")
    text = compare(capsys, tmp_path / "one", tmp_path / "two", "--metrics", "F1")
    assert "FROC and AP are not compared, since two lacks confidences: b: there is no lesion table beside" in text
    # Where no evaluation has them, nobody misses them.
    assert "FROC" not in compare(capsys, tmp_path / "two", tmp_path / "two", "--names", "a", "b", "--metrics", "F1")


def test_evaluations_of_an_earlier_version_load(folders, tmp_path, capsys):
    evaluate(*folders, "-o", tmp_path / "new")
    old = evaluate(*folders, "-o", tmp_path / "old")
    del old["detection"], old["settings"]["beta"]
    for case in old["metric_per_case"]:
        del case["detection"]
    (tmp_path / "old" / "summary_instances.json").write_text(json.dumps(old))
    methods = load_methods([tmp_path / "new", tmp_path / "old"])
    assert "Detection over confidence" not in compare(capsys, tmp_path / "new", tmp_path / "old", "--metrics", "F1")
    page = make_report(methods, n_cases=0)
    assert "Detection over confidence" in page and "Paired differences of detection" not in page
    assert "Detection over confidence" not in make_report(methods[1:], n_cases=0)


def test_f_beta(folders, tmp_path):
    summary = evaluate(*folders, "-o", tmp_path / "e", "--beta", 2)
    # One of two found, one false: 5 x 1 / (5 x 1 + 4 x 1 + 1).
    assert summary["metric_per_case"][0]["metrics"]["F_beta"] == 0.5
    # With the false prediction of b: 5 / (5 + 4 + 2).
    assert summary["pooled"]["F_beta"] == pytest.approx(5 / 11)
    assert "F_beta" not in evaluate(*folders, "-o", tmp_path / "e")["mean"]
    with pytest.raises(InputError, match="beta is 0"):
        evaluate(*folders, "-o", tmp_path / "e", "--beta", 0)
