"""What holds for any pair of maps."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings

RULES = ("paper", "isbi2024", "greedy", "hungarian")
ONE_TO_ONE = ("paper", "greedy", "hungarian")
SYMMETRIC = ("TP", "F1", "DSC", "DSC_TP", "PQ", "SQ", "RQ", "DiC")
SPACING = {2: (0.7, 2.0), 3: (0.7, 2.0, 3.1)}


@st.composite
def pairs_of_maps(draw):
    """Two maps of small blocks with ids 0 to 4, so that they overlap and touch often."""
    shape = draw(st.sampled_from([(4, 5), (3, 3, 3), (2, 4, 3)]))
    ids = st.integers(0, 4)
    maps = [draw(hnp.arrays(np.int32, shape, elements=ids, fill=st.just(0))) for _ in range(2)]
    # Blocks of voxels give other overlaps than single voxels do.
    scale = draw(st.sampled_from([1, 2]))
    return tuple(instances.repeat(scale, axis=0).repeat(scale, axis=1) for instances in maps)


def evaluate(maps, **options):
    return evaluate_case(*maps, SPACING[maps[0].ndim], **options)


def without_ties(maps):
    iou = assess(Foreground.of(*maps), SPACING[maps[0].ndim], CaseSettings()).table.pair_iou
    return len(set(iou)) == len(iou)


def same(found, expected, without=()):
    for name in expected:
        if name not in without:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=0, equal_nan=True, err_msg=name)


law = settings(max_examples=100, deadline=None)


@law
@given(pairs_of_maps(), st.sampled_from(RULES), st.floats(0, 0.9))
def test_counts_and_products_agree(maps, rule, threshold):
    found = evaluate(maps, matching=rule, iou_threshold=threshold)
    assert found["n_reference"] == len(set(maps[1].flat) - {0})
    assert found["n_prediction"] == found["TP"] + found["FP"]
    if rule in ONE_TO_ONE:
        assert found["TP"] + found["FN"] == found["n_reference"]
        assert found["TP_CLU"] + found["FN_CLU"] == found["n_CLU"]
    if found["TP"]:
        np.testing.assert_allclose(found["PQ"], found["SQ"] * found["RQ"], rtol=1e-15)
    for name in ("Precision", "Recall", "F1", "DSC", "nDSC", "SQ", "PQ", "Recall_CLU", "Precision_CLU", "PQ_CLU"):
        assert np.isnan(found[name]) or 0 <= found[name] <= 1


@law
@given(pairs_of_maps(), st.sampled_from(RULES))
def test_order_preserving_new_ids_change_nothing(maps, rule):
    larger = [instances.astype(np.int64) * 1_000_003 for instances in maps]
    assert_equal = np.testing.assert_equal
    assert_equal(evaluate(larger, matching=rule), evaluate(maps, matching=rule))


@law
@given(pairs_of_maps(), st.sampled_from(RULES), st.permutations([1, 2, 3, 4]), st.permutations([1, 2, 3, 4]))
def test_permuted_ids_change_nothing_without_ties(maps, rule, first, second):
    assume(without_ties(maps))
    permuted = [np.array([0, *order])[i] for order, i in zip((first, second), maps, strict=True)]
    same(evaluate(permuted, matching=rule), evaluate(maps, matching=rule))


@law
@given(pairs_of_maps(), st.sampled_from(RULES))
def test_above_one_half_all_rules_agree_and_roles_swap(maps, rule):
    # Above 0.5 a lesion can have one partner only (Kirillov et al., 2019).
    found = evaluate(maps, matching=rule, iou_threshold=0.5)
    same(found, evaluate(maps, matching="hungarian", iou_threshold=0.5))
    swapped = evaluate(maps[::-1], matching=rule, iou_threshold=0.5)
    for name in SYMMETRIC:
        np.testing.assert_equal(swapped[name], found[name])
    for name, other in (("FP", "FN"), ("FP_volume_mm3", "FN_volume_mm3"), ("n_prediction", "n_reference")):
        assert swapped[name] == found[other]
    assert swapped["n_merged_references"] == found["n_splitting_predictions"]
    if found["n_prediction"] and found["n_reference"]:
        assert swapped["Precision"] == found["Recall"]


@law
@given(pairs_of_maps(), st.floats(0, 0.9))
def test_greedy_swaps_roles_at_any_threshold(maps, threshold):
    assume(without_ties(maps))
    found, swapped = (evaluate(pair, matching="greedy", iou_threshold=threshold) for pair in (maps, maps[::-1]))
    same(swapped, found | {"FP": found["FN"], "FN": found["FP"]}, without=set(found) - {*SYMMETRIC, "FP", "FN"})
    if found["n_prediction"] and found["n_reference"]:
        assert (swapped["Precision"], swapped["Recall"]) == (found["Recall"], found["Precision"])


@law
@given(pairs_of_maps(), st.floats(0, 0.9))
def test_hungarian_finds_the_same_sum_with_roles_swapped(maps, threshold):
    # Which of several sets of equal sum is taken, and so TP, may differ.
    hungarian = CaseSettings(threshold, "hungarian")
    one, other = (assess(Foreground.of(*p), SPACING[p[0].ndim], hungarian).matches.iou for p in (maps, maps[::-1]))
    np.testing.assert_allclose(one.sum(), other.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("rule", "counts", "swapped"), [("paper", (1, 1, 1), (2, 0, 0)), ("isbi2024", (2, 0, 1), (2, 0, 0))]
)
def test_paper_and_isbi2024_do_not_swap_roles_at_low_thresholds(rule, counts, swapped):
    # Both predictions take the long reference; the short one takes the first prediction, which has no second choice.
    prediction, reference = np.zeros((2, 1, 20), np.int32)
    prediction[0, 0:10], prediction[0, 10:16] = 1, 2
    reference[0, 5:16], reference[0, 1:3] = 1, 2
    for maps, expected in (((prediction, reference), counts), ((reference, prediction), swapped)):
        found = evaluate(maps, matching=rule)
        assert (found["TP"], found["FP"], found["FN"]) == expected


@law
@given(pairs_of_maps(), st.sampled_from(RULES), st.integers(1, 3))
def test_an_empty_border_changes_only_the_normalized_dice(maps, rule, width):
    padded = [np.pad(instances, width) for instances in maps]
    same(evaluate(padded, matching=rule), evaluate(maps, matching=rule), without=("nDSC",))


@law
@given(pairs_of_maps(), st.sampled_from(RULES), st.integers(0, 2))
def test_flipped_axes_change_nothing(maps, rule, axis):
    flipped = [np.flip(instances, axis % instances.ndim) for instances in maps]
    same(evaluate(flipped, matching=rule), evaluate(maps, matching=rule))


@law
@given(pairs_of_maps())
def test_a_perfect_prediction_is_perfect(maps):
    found = evaluate((maps[1], maps[1]))
    ratios = ("Precision", "Recall", "F1", "DSC", "nDSC", "DSC_TP", "SQ", "PQ", "RQ")
    confluent = ("Recall_CLU", "Precision_CLU", "F1_CLU", "DSC_TP_CLU", "SQ_CLU", "PQ_CLU")
    expected = [(name, found["n_reference"]) for name in ratios] + [(name, found["n_CLU"]) for name in confluent]
    for name, exists in expected:
        assert found[name] == 1 if exists else np.isnan(found[name]), name


@law
@given(pairs_of_maps())
def test_a_higher_threshold_never_finds_more_in_a_sweep(maps):
    found = [evaluate(maps, iou_threshold=i / 10)["TP"] for i in range(10)]
    assert found == sorted(found, reverse=True)
