"""Unknown instances of the reference, by hand and against leaving them out before."""

import numpy as np
import pytest
from support import line

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.detection.steps import steps_of_case
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.evaluation.metrics.unknown import OF_UNKNOWN

UNKNOWN = 900
NAN = pytest.approx(np.nan, nan_ok=True)


def test_neither_unknown_lesions_nor_predictions_on_them_are_counted():
    reference = line((1, 0, 10), (UNKNOWN, 20, 30), (UNKNOWN, 40, 44), (2, 50, 55))
    # Found; on unknown voxels; a false one; on nothing but one voxel of the other unknown piece.
    prediction = line((5, 0, 10), (6, 22, 35), (7, 46, 48), (8, 37, 41))
    found = evaluate_case(prediction, reference, (2.0, 0.5), unknown=UNKNOWN)
    assert (found["n_reference"], found["n_prediction"]) == (2, 2)
    assert (found["TP"], found["FP"], found["FN"]) == (1, 1, 1)
    assert found["Precision"] == found["Recall"] == found["F1"] == 0.5 and found["DiC"] == 0
    assert [found[name] for name in OF_UNKNOWN] == [14, 14.0, 2]
    # The mask has them: 29 voxels of the reference and of the prediction share 10, 8 and 1.
    assert found["DSC"] == 2 * 19 / 58 and found["load_reference_mm3"] == found["load_prediction_mm3"] == 29
    assert (found["FP_volume_mm3"], found["FN_volume_mm3"]) == (10, 10)
    assert (found["FP_lesion_volume_mm3"], found["FN_lesion_volume_mm3"]) == (2, 5)
    assert found["accuracy_50"] == 1 / 3


def test_without_a_declaration_nothing_is_different():
    reference, prediction = line((1, 0, 10), (UNKNOWN, 20, 30)), line((5, 0, 10), (6, 22, 35))
    found = evaluate_case(prediction, reference, (1, 1))
    assert (found["TP"], found["n_reference"]) == (2, 2) and not set(OF_UNKNOWN) & set(found)
    # A declared id that the map does not hold adds counts of 0 and changes nothing.
    declared = evaluate_case(prediction, reference, (1, 1), unknown=7)
    assert [declared.pop(name) for name in OF_UNKNOWN] == [0, 0, 0]
    assert declared == found


@pytest.mark.parametrize(
    "shared, counted",
    [(3, False), (4, False), (5, True)],
    ids=["more with unknown voxels", "as much with both", "more with a known lesion"],
)
def test_the_largest_overlap_decides_whether_a_prediction_counts(shared, counted):
    # Four voxels of the prediction are unknown, and two are of another known lesion.
    reference = line((1, 10 - shared, 10), (UNKNOWN, 10, 14), (2, 14, 16))
    found = evaluate_case(line((5, 10 - shared, 16)), reference, (1, 1), unknown=UNKNOWN)
    assert found["n_prediction"] == counted and found["n_predictions_left_out"] == 1 - counted
    assert (found["TP"], found["FN"]) == ((1, 1) if counted else (0, 2))


def test_pieces_of_the_unknown_id_are_taken_together():
    reference = line((UNKNOWN, 0, 3), (1, 3, 8), (UNKNOWN, 8, 11))
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


@pytest.mark.parametrize("rule", ["paper", "isbi2024", "greedy", "hungarian"])
def test_lesion_metrics_are_those_of_the_maps_without_what_does_not_count(rule, random_pair):
    """Of any two maps, one reference declared unknown; confluence, which the whole mask decides on, is left aside."""
    options, n_left_out = {"matching": rule, "iou_threshold": 0.1}, 0
    for ndim in (2, 3):
        for seed in range(60):
            rng = np.random.default_rng(1000 * ndim + seed)
            prediction, reference = random_pair(rng, ndim)
            ids = np.unique(reference)
            if len(ids) < 2:
                continue
            unknown = int(rng.choice(ids[ids > 0]))
            left = prediction.copy()
            for i in np.unique(prediction[prediction > 0]):
                shared = {r: np.count_nonzero(reference[prediction == i] == r) for r in ids if r}
                if shared[unknown] and shared[unknown] == max(shared.values()):
                    left[prediction == i] = 0
                    n_left_out += 1
            known = np.where(reference == unknown, 0, reference)
            spacing_mm = (1.0, 2.0, 0.5)[:ndim]
            whole = evaluate_case(prediction, reference, spacing_mm, **options)
            expected = evaluate_case(left, known, spacing_mm, **options)
            found = evaluate_case(prediction, reference, spacing_mm, unknown=unknown, **options)
            semantic = {"DSC", "nDSC", "FP_volume_mm3", "FN_volume_mm3", *(n for n in found if n.startswith("load_"))}
            for name in set(found) - set(OF_UNKNOWN):
                if not name.endswith("_CLU"):
                    assert found[name] == pytest.approx((whole if name in semantic else expected)[name], nan_ok=True)
            # Over every threshold on confidence likewise.
            both = (
                assess(Foreground.of(prediction, reference), spacing_mm, CaseSettings(**options, unknown=unknown)),
                assess(Foreground.of(left, known), spacing_mm, CaseSettings(**options)),
            )
            for ours, theirs in zip(*(case.sweep() for case in both), strict=True):
                assert ours == pytest.approx(theirs, nan_ok=True)
            confidence = rng.permutation(len(both[1].table.prediction_ids)) / 10
            steps = [steps_of_case(case.table, both[0].confluent, confidence, rule) for case in both]
            np.testing.assert_array_equal(steps[0].counts, steps[1].counts)
    assert n_left_out > 20
