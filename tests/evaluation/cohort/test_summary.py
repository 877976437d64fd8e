"""What a folder's summary says of AP without confidence and of the published CLU metrics."""

import json

import numpy as np
import pandas as pd
import pytest
from skimage import io

from nnunetv2_conflunet.commands import evaluate as command
from nnunetv2_conflunet.evaluation.cohort.summary import pooled_accuracies
from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES
from nnunetv2_conflunet.evaluation.report.tables import accuracy_rows, describe_settings


def save_rods(file, *ids):
    """A PNG of rods of 3 x 10 pixels side by side in pairs that touch."""
    image = np.zeros((40, 60), np.uint8)
    for i, rod in enumerate(ids):
        row, column = 10 * (i // 2) + 3 * (i % 2), 5
        image[row : row + 3, column : column + 10] = rod
    file.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(file, image, check_contrast=False)


@pytest.fixture
def planes(tmp_path):
    """Of four rods all are found, then one; a third image has none, and nothing is predicted."""
    for case, ids in (("a", (1, 2, 3, 4)), ("b", (1, 2, 3, 4)), ("c", ())):
        save_rods(tmp_path / "reference" / f"{case}.png", *ids)
    for case, ids in (("a", (7, 8, 9, 6)), ("b", (5,)), ("c", ())):
        save_rods(tmp_path / "prediction" / f"{case}.png", *ids)
    return tmp_path


def evaluate(folder, *arguments):
    where = (str(folder / "reference"), str(folder / "prediction"), "-np", "1")
    command.evaluate(command._parser().parse_args([*where, *arguments]))
    output = folder / "prediction"
    return json.loads((output / "summary_instances.json").read_text()), pd.read_csv(output / "cases.csv")


def test_accuracies_are_per_image_and_pooled_and_have_a_table(planes, capsys):
    summary, cases = evaluate(planes)
    assert cases["accuracy_75"].tolist()[:2] == [1, 0.25] and np.isnan(cases["accuracy_75"][2])
    assert summary["mean"]["accuracy_75"] == 0.625 and summary["n"]["accuracy_75"] == 2
    # 5 of 8 rods, without a false one.
    assert summary["pooled"]["accuracy_95"] == summary["pooled"]["accuracy_50_95"] == 0.625
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if "AP without confidence: TP / (TP + FP + FN) by IoU, %" in line)
    assert lines[start + 4].split() == ["│", "0.50", "│", "62.5", "│", "62.5", "±", "53.0", "│", "2", "│"]
    assert "mean" in lines[start + 14]


def test_an_evaluation_of_an_earlier_version_has_no_table_of_accuracies():
    assert pooled_accuracies(pd.DataFrame({"n_prediction": [1], "n_reference": [1]})) == {}
    assert accuracy_rows({"mean": {"F1": 1.0}})[1] == []


def test_images_without_any_instance_are_left_out_of_pooled_accuracies():
    empty = {"n_prediction": 0, "n_reference": 0, **dict.fromkeys(ACCURACIES, np.nan)}
    assert np.isnan(pooled_accuracies(pd.DataFrame([empty]))["accuracy_50"])
    half = {"n_prediction": 1, "n_reference": 2, **dict.fromkeys(ACCURACIES, 0.5)}
    assert pooled_accuracies(pd.DataFrame([empty, half]))["accuracy_50_95"] == 0.5


def test_published_metrics_are_averaged_and_only_their_counts_are_pooled(planes, capsys):
    summary, cases = evaluate(planes, "--clu", "published", "--surface", "--beta", "2")
    assert cases["n_CLU"].tolist() == cases["n_CLU_tier_1_conn_26"].tolist() == [4, 4, 0]
    assert cases["Recall_CLU"].tolist() == [4 / 4.000001, 1 / 4.000001, 1]
    # Without a CLU the published code has no Dice; its means leave that case out, with any policy.
    assert summary["n"]["DSC_TP_CLU"] == summary["n"]["DSC_TP_CLU_conn_26"] == 2 and summary["n"]["PQ_CLU_tier_1"] == 3
    pooled = summary["pooled"]
    assert (pooled["TP_CLU"], pooled["FN_CLU_tier_1"], pooled["n_CLU_conn_26"]) == (5, 3, 8)
    assert not {"Recall_CLU", "PQ_CLU", "SQ_CLU", "F_beta_CLU", "Recall_CLU_tier_1"} & set(pooled)
    assert {"Recall", "F_beta"} <= set(pooled)
    assert "CLU 'published', connectivity 6 and 26" in describe_settings(summary)
    out = capsys.readouterr().out
    assert "Recall_CLU_tier_1_conn_26 (%)" in out and "n_CLU_tier_1 " in out
