"""Unknown instances of the reference, by hand and against leaving them out before."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import line

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.detection.steps import steps_of_case
from nnunetv2_conflunet.evaluation.metrics.case import SWEPT, assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.evaluation.metrics.unknown import OF_UNKNOWN

UNKNOWN = 900
NAN = pytest.approx(np.nan, nan_ok=True)


def test_neither_unknown_lesions_nor_predictions_on_them_are_counted():
    reference = line((1, 0, 10), (UNKNOWN, 20, 30), (UNKNOWN, 40, 44), (2, 50, 55))
    # Found; mostly on unknown voxels; a false one; another one, which shares a voxel with the other unknown piece.
    prediction = line((5, 0, 10), (6, 22, 35), (7, 46, 48), (8, 37, 41))
    found = evaluate_case(prediction, reference, (2.0, 0.5), unknown=UNKNOWN)
    assert (found["n_reference"], found["n_prediction"]) == (2, 3)
    assert (found["TP"], found["FP"], found["FN"]) == (1, 2, 1)
    assert (found["Precision"], found["Recall"], found["F1"], found["DiC"]) == (1 / 3, 1 / 2, 2 / 5, 1)
    assert [found[name] for name in OF_UNKNOWN] == [14, 14.0, 1]
    # The mask has them: 29 voxels of the reference and of the prediction share 10, 8 and 1.
    assert found["DSC"] == 2 * 19 / 58 and found["load_reference_mm3"] == found["load_prediction_mm3"] == 29
    assert (found["FP_volume_mm3"], found["FN_volume_mm3"]) == (10, 10)
    assert (found["FP_lesion_volume_mm3"], found["FN_lesion_volume_mm3"]) == (6, 5)
    assert found["accuracy_50"] == 1 / 4


def test_without_a_declaration_nothing_is_different():
    reference, prediction = line((1, 0, 10), (UNKNOWN, 20, 30)), line((5, 0, 10), (6, 22, 35))
    found = evaluate_case(prediction, reference, (1, 1))
    assert (found["TP"], found["n_reference"]) == (2, 2) and not set(OF_UNKNOWN) & set(found)
    # A declared id that the map does not hold adds counts of 0 and changes nothing.
    declared = evaluate_case(prediction, reference, (1, 1), unknown=7)
    assert [declared.pop(name) for name in OF_UNKNOWN] == [0, 0, 0]
    assert declared == found


@pytest.mark.parametrize("n_unknown, counted", [(1, True), (5, True), (6, False)], ids=["one", "half", "most"])
def test_an_unmatched_prediction_is_left_out_by_more_than_half_of_its_voxels(n_unknown, counted):
    # Ten voxels, of which none is of a known lesion.
    reference = line((1, 30, 40), (UNKNOWN, 10, 10 + n_unknown))
    found = evaluate_case(line((5, n_unknown, 10 + n_unknown)), reference, (1, 1), unknown=UNKNOWN)
    assert (found["n_prediction"], found["FP"]) == (counted, counted) and found["FN"] == 1
    assert found["n_predictions_left_out"] == 1 - counted


def test_a_prediction_with_a_match_counts_however_much_of_it_is_unknown():
    # IoU 3 / 12 with the known lesion, and nine of the twelve voxels unknown.
    reference, prediction = line((1, 0, 3), (UNKNOWN, 3, 20)), line((5, 0, 12))
    options = {"unknown": UNKNOWN}
    found = evaluate_case(prediction, reference, (1, 1), **options)
    assert (found["TP"], found["FP"], found["FN"], found["n_predictions_left_out"]) == (1, 0, 0, 0)
    # At a threshold of 0.25 it has none.
    found = evaluate_case(prediction, reference, (1, 1), iou_threshold=0.25, **options)
    assert (found["TP"], found["FP"], found["FN"], found["n_predictions_left_out"]) == (0, 0, 1, 1)


def test_pieces_of_the_unknown_id_are_taken_together():
    reference = line((UNKNOWN, 0, 3), (1, 3, 4), (UNKNOWN, 6, 9))
    assert evaluate_case(line((5, 0, 11)), reference, (1, 1), unknown=UNKNOWN)["n_prediction"] == 0


def test_the_id_means_nothing_in_predictions():
    found = evaluate_case(line((UNKNOWN, 0, 10)), line((1, 0, 10)), (1, 1), unknown=UNKNOWN)
    assert (found["TP"], found["PQ"], found["n_unknown_voxels"]) == (1, 1, 0)


def test_a_case_of_unknown_lesions_only_has_no_lesion_to_find():
    reference = line((UNKNOWN, 0, 10))
    found = evaluate_case(line((5, 0, 10)), reference, (1, 1), unknown=UNKNOWN)
    assert (found["n_reference"], found["n_prediction"], found["FP"]) == (0, 0, 0)
    assert (found["Recall"], found["Precision"], found["PQ"], found["DSC"]) == (NAN, NAN, NAN, 1)


@pytest.mark.parametrize("clu", ["shared", "eq3", "published"])
def test_a_known_lesion_that_touches_unknown_voxels_is_confluent(clu):
    reference = line((1, 0, 10), (UNKNOWN, 10, 20), (2, 30, 40))
    found = evaluate_case(reference, reference, (1, 1), clu=clu, unknown=UNKNOWN)
    assert (found["n_CLU"], found["TP_CLU"], found["n_reference"]) == (1, 1, 2)
    case = assess(Foreground.of(reference, reference), (1, 1), CaseSettings(clu=clu, unknown=UNKNOWN))
    assert case.confluent.tolist() == case.confluent_predictions().tolist() == [True, False]


RULES = ("paper", "isbi2024", "greedy", "hungarian")


def counted_maps(prediction, reference, unknown, options):
    """The maps without unknown lesions and without the unmatched predictions of which they are more than half."""
    known = np.where(reference == unknown, 0, reference)
    case = assess(Foreground.of(prediction, known), (1.0,) * prediction.ndim, CaseSettings(**options))
    matched = set(case.table.prediction_ids[case.matches.prediction].tolist())
    left = prediction.copy()
    for i in set(np.unique(prediction[prediction > 0]).tolist()) - matched:
        voxels = reference[prediction == i].tolist()
        if voxels.count(unknown) > len(voxels) / 2:
            left[prediction == i] = 0
    return left, known


def values_of(case):
    """Metrics of the lesions; confluence and volumes of the mask, which the whole maps decide on, are left aside."""
    whole = ("DSC", "nDSC", "FP_volume_mm3", "FN_volume_mm3")
    return {
        name: value
        for name, value in case.metrics.items()
        if not name.endswith("_CLU") and not name.startswith("load_") and name not in (*whole, *OF_UNKNOWN)
    }


# The fixture is a function without a state.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    ndim=st.sampled_from([2, 3]),
    rule=st.sampled_from(RULES),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.6]),
)
def test_lesion_metrics_are_those_of_the_maps_without_what_does_not_count(random_pair, seed, ndim, rule, threshold):
    rng = np.random.default_rng(seed)
    prediction, reference = random_pair(rng, ndim)
    ids = np.unique(reference[reference > 0])
    assume(len(ids))
    unknown = int(rng.choice(ids))
    options = {"matching": rule, "iou_threshold": threshold}
    left, known = counted_maps(prediction, reference, unknown, options)
    spacing_mm = (1.0, 2.0, 0.5)[:ndim]
    found = assess(Foreground.of(prediction, reference), spacing_mm, CaseSettings(**options, unknown=unknown))
    expected = assess(Foreground.of(left, known), spacing_mm, CaseSettings(**options))
    assert values_of(found) == pytest.approx(values_of(expected), nan_ok=True)
    n_left_out = len(np.unique(prediction[prediction > 0])) - len(np.unique(left[left > 0]))
    assert found.metrics["n_predictions_left_out"] == n_left_out
    np.testing.assert_array_equal(found.foreground.prediction, left[tuple(found.foreground.coordinates.T)])
    whole = evaluate_case(prediction, reference, spacing_mm, **options)
    assert found.metrics["DSC"] == whole["DSC"] and found.metrics["load_error_mm3"] == whole["load_error_mm3"]
    # The sweep says what counts at each of its thresholds.
    for row in found.sweep():
        again = options | {"iou_threshold": row["iou_threshold"], "unknown": unknown}
        at_threshold = evaluate_case(prediction, reference, spacing_mm, **again)
        assert [row[name] for name in SWEPT] == pytest.approx([at_threshold[name] for name in SWEPT], nan_ok=True)


@pytest.mark.parametrize("threshold, expected", [(0.1, (2, 0)), (0.5, (1, 0))])
def test_over_confidence_a_prediction_counts_by_the_threshold_of_each_metric(threshold, expected):
    """A match at 0.1 of which most is unknown; at 0.5 it has no match, and is no false one either."""
    reference, prediction = line((1, 0, 3), (2, 30, 35), (UNKNOWN, 3, 20)), line((5, 0, 12), (6, 30, 35))
    case = assess(Foreground.of(prediction, reference), (1, 1), CaseSettings(unknown=UNKNOWN))
    kept, table, _ = case.matched(threshold)
    steps = steps_of_case(table, case.confluent, np.array([0.9, 0.8])[kept], "paper", threshold)
    _, n_true, n_false, *_ = steps.counts.sum(axis=0)
    assert (n_true, n_false) == expected
