"""Detection by volume and by confluence."""

import numpy as np
import pandas as pd
import pytest

from nnunetv2_conflunet.evaluation.cohort.summary import strata_by_confluence, strata_by_volume

COLUMNS = ["side", "status", "volume_mm3", "match_iou", "match_dice", "answers_CLU"]
LESIONS = pd.DataFrame(
    [
        ("reference", "TP", 20.0, 0.5, 0.6, False),
        ("reference", "FN", 29.9, None, None, True),
        ("reference", "TP", 30.0, 0.8, 0.9, True),
        ("prediction", "TP", 35.0, 0.5, 0.6, False),
        ("prediction", "TP", 30.0, 0.8, 0.9, True),
        ("prediction", "FP", 15.0, None, None, False),
    ],
    columns=COLUMNS,
)


def test_by_volume_a_border_belongs_to_the_upper_range():
    small, large = strata_by_volume(LESIONS, (30.0,))
    assert (small["stratum"], large["stratum"]) == ("< 30 mm3", ">= 30 mm3")
    assert (small["n_reference"], small["TP"], small["FN"], small["FP"]) == (2, 1, 1, 1)
    assert (small["Recall"], small["Precision"]) == (0.5, 0.0)
    # One pair of IoU 0.5 beside one unmatched lesion on each side.
    assert (small["SQ"], small["PQ"]) == (0.5, 0.25)
    assert (large["n_prediction"], large["Recall"], large["Precision"], large["PQ"]) == (2, 1, 1, 0.8)


def test_a_border_is_reached_whatever_rounding_the_spacing_has():
    # As headers have it: 0.12 x 1 x 1 mm, 0.9 x 0.5 x 0.5 mm, of which so many voxels are 30 and 90 mm3.
    for n_voxels, spacing_mm, border in ((250, (0.12, 1, 1), 30.0), (400, (0.9, 0.5, 0.5), 90.0)):
        volume = n_voxels * float(np.prod(np.float32(spacing_mm).astype(float)))
        assert volume < border
        assert strata_by_volume(LESIONS.assign(volume_mm3=volume), (border,))[1]["n_reference"] == 3


def test_by_confluence():
    confluent, isolated = strata_by_confluence(LESIONS)
    assert (confluent["Recall"], confluent["Precision"], confluent["PQ"]) == (0.5, 1, pytest.approx(0.8 * 2 / 3))
    assert (isolated["Recall"], isolated["Precision"], isolated["FP"]) == (1, 0.5, 1)


def test_ranges_without_lesions_and_without_borders():
    middle = strata_by_volume(LESIONS, (100.0, 200.0))[1]
    assert middle["stratum"] == "100 to 200 mm3" and middle["n_reference"] == 0
    assert np.isnan(middle["Recall"]) and np.isnan(middle["Precision"]) and np.isnan(middle["PQ"])
    (everything,) = strata_by_volume(LESIONS, ())
    assert everything["n_reference"] == everything["n_prediction"] == 3


def test_borders_that_differ_in_late_digits_have_different_names():
    borders = (1_000_000.0, 1_000_001.0, 1_000_002.0)
    lesions = LESIONS.assign(volume_mm3=1_000_001.5)
    rows = strata_by_volume(lesions, borders)
    assert [row["stratum"] for row in rows] == [
        "< 1000000 mm3", "1000000 to 1000001 mm3", "1000001 to 1000002 mm3", ">= 1000002 mm3",
    ]  # fmt: skip
    assert [row["n_reference"] for row in rows] == [0, 0, 3, 0]
