"""Folders whose dataset.json declares an id of unknown instances: files, tables and what is printed."""

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from nnunetv2_conflunet.commands import evaluate as command
from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.metrics.unknown import OF_UNKNOWN
from nnunetv2_conflunet.evaluation.report.comparison import compare_methods
from nnunetv2_conflunet.evaluation.report.report import make_report
from nnunetv2_conflunet.utilities.errors import InputError

UNKNOWN = 3
# Boxes of 80, 60, 60 and 1 voxels of 3 mm3; the first two touch.
FIRST, SECOND = ((1, 5), (1, 5), (1, 6)), ((1, 5), (5, 8), (1, 6))
APART, SPECK = ((8, 11), (1, 5), (10, 15)), ((10, 11), (12, 13), (17, 18))


def save(path, *runs):
    instances = np.zeros((12, 16, 20), np.uint16)
    for i, box in runs:
        instances[tuple(slice(a, b) for a, b in box)] = i
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(instances)
    image.SetSpacing((1.0, 1.5, 2.0))
    sitk.WriteImage(image, str(path))


def declare(folder, unknown):
    content = {"file_ending": ".nii.gz", **({} if unknown is None else {"instances": {"unknown": unknown}})}
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def folders(tmp_path):
    """In `a`, a known lesion that touches an unknown one, and an unknown speck; all are found, and one too much."""
    reference, prediction = tmp_path / "Dataset001_MS" / "instancesTr", tmp_path / "out"
    save(reference / "a.nii.gz", (5, FIRST), (UNKNOWN, SECOND), (UNKNOWN, SPECK))
    save(prediction / "a.nii.gz", (7, FIRST), (2, SECOND), (9, APART))
    save(reference / "b.nii.gz", (4, FIRST))
    save(prediction / "b.nii.gz", (UNKNOWN, FIRST))
    declare(reference.parent, UNKNOWN)
    for case, confidences in (("a", {7: 0.8, 2: 0.9, 9: 0.5}), ("b", {UNKNOWN: 0.7})):
        table = pd.DataFrame({"id": list(confidences), "confidence": list(confidences.values())})
        table.to_csv(prediction / f"{case}.csv", index=False)
    return reference, prediction


def evaluate(*arguments):
    args = command._parser().parse_args([*map(str, arguments), "-np", "1"])
    command.evaluate(args)
    output = args.o or args.prediction
    summary = json.loads((output / "summary_instances.json").read_text())
    return summary, pd.read_csv(output / "cases.csv", index_col="case"), pd.read_csv(output / "lesions.csv")


def test_tables_and_summary_have_what_counts_and_say_what_does_not(folders, tmp_path, capsys):
    summary, cases, lesions = evaluate(*folders, "-o", tmp_path / "e", "--surface")
    first = cases.loc["a"]
    assert [first[name] for name in ("n_reference", "n_prediction", "TP", "FP", "FN")] == [1, 2, 1, 1, 0]
    assert [first[name] for name in OF_UNKNOWN] == [61, 183, 1]
    assert [cases.loc["b", name] for name in OF_UNKNOWN] == [0, 0, 0] and cases.loc["b", "TP"] == 1
    # The mask is compared as a whole, and the size filter has no say on unknown voxels.
    assert first["DSC"] == 2 * 140 / (200 + 141) and first["load_reference_mm3"] == 423
    assert summary["removed"]["reference"]["n_instances_removed"] == 0
    assert first["n_CLU"] == first["TP_CLU"] == 1 and first["ASD_mm"] == 0
    rows = lesions[lesions["case"] == "a"][["side", "id", "status", "volume_mm3", "confluent"]].values.tolist()
    assert rows == [
        ["reference", 5, "TP", 240, True],
        ["prediction", 7, "TP", 240, True],
        ["prediction", 9, "FP", 180, False],
    ]
    assert [summary["pooled"][name] for name in OF_UNKNOWN] == [61, 183, 1]
    assert summary["settings"]["unknown"] == UNKNOWN
    (note,) = summary["notes"]
    assert note.startswith("61 voxels (183 mm3) in 1 of 2 references are of unknown instances")
    assert "1 predicted lesions that lie on them are left out" in note
    printed = " ".join(capsys.readouterr().out.split())
    assert note in printed and "n_predictions_left_out" in printed
    assert note in make_report(load_methods([tmp_path / "e"]), n_cases=2)


def test_detection_over_confidence_leaves_them_out(folders, tmp_path):
    found = evaluate(*folders, "-o", tmp_path / "e", "--froc")[0]["detection"]["metrics"]
    # Of 0.8, 0.7 and 0.5 the first two are right, and the 0.9 on unknown voxels is none.
    assert found["AP@0.1"]["value"] == 1 and found["FROC"]["value"] == 1


def test_without_the_declaration_the_tables_are_as_ever(folders, tmp_path, capsys):
    declare(folders[0].parent, None)
    summary, cases, lesions = evaluate(*folders, "-o", tmp_path / "e")
    assert not set(OF_UNKNOWN) & {*cases.columns, *summary["pooled"], *summary["mean"]}
    # The id is a lesion like others.
    assert cases.loc["a", ["n_reference", "n_prediction", "TP"]].tolist() == [2, 3, 2]
    assert summary["notes"] == [] and UNKNOWN in lesions["id"].tolist()
    assert "unknown" not in capsys.readouterr().out


def test_the_declaration_may_be_named(folders, tmp_path):
    declare(folders[0].parent, None)
    (tmp_path / "elsewhere").mkdir()
    declare(tmp_path / "elsewhere", UNKNOWN)
    _, cases, _ = evaluate(*folders, "-o", tmp_path / "e", "-djfile", tmp_path / "elsewhere" / "dataset.json")
    assert cases.loc["a", "n_predictions_left_out"] == 1


def test_parts_and_evaluations_of_another_declaration_are_not_mixed(folders, tmp_path):
    for part in (0, 1):
        args = [*folders, "-o", tmp_path / "parts", "-num_parts", 2, "-part_id", part, "-np", 1]
        command.evaluate(command._parser().parse_args([*map(str, args)]))
    merge = *folders, "-o", tmp_path / "parts", "-num_parts", 2, "--merge"
    whole = evaluate(*folders, "-o", tmp_path / "declared")[0]
    assert evaluate(*merge)[0]["metric_per_case"] == whole["metric_per_case"]
    declare(folders[0].parent, None)
    with pytest.raises(InputError, match="was made with a different unknown"):
        evaluate(*merge)
    evaluate(*folders, "-o", tmp_path / "not")
    with pytest.raises(InputError, match="were evaluated with a different unknown"):
        compare_methods(load_methods([tmp_path / "declared", tmp_path / "not"]), ["F1"])


def test_an_id_that_is_none_is_named_before_the_work(folders, tmp_path):
    declare(folders[0].parent, 0)
    with pytest.raises(InputError, match="the id of unknown instances is a positive integer"):
        evaluate(*folders, "-o", tmp_path / "e")
    assert not (tmp_path / "e").exists()
