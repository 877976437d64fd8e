"""AP without confidence agrees with a loop over all sets of pairs, and with values by hand."""

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.metrics.accuracy import ACCURACIES, MEAN_ACCURACY, pooled_accuracy

NAMES = [f"accuracy_{percent}" for percent in range(50, 100, 5)]


def largest_one_to_one(pairs):
    """Size of the largest set in which no prediction and no reference occurs twice, by trying every set."""
    if not pairs:
        return 0
    (p, r), *others = pairs
    with_first = 1 + largest_one_to_one([(q, s) for q, s in others if q != p and s != r])
    return max(with_first, largest_one_to_one(others))


def by_loop(prediction, reference):
    """(TP, FP, FN) at each threshold, from one mask per lesion and whole numbers of voxels."""
    predictions = [prediction == i for i in np.unique(prediction) if i]
    references = [reference == i for i in np.unique(reference) if i]
    counts = []
    for percent in range(50, 100, 5):
        pairs = [
            (p, r)
            for p, one in enumerate(predictions)
            for r, other in enumerate(references)
            if 100 * int((one & other).sum()) >= percent * int((one | other).sum())
        ]
        tp = largest_one_to_one(pairs)
        counts.append((tp, len(predictions) - tp, len(references) - tp))
    return counts


def test_all_thresholds_agree_with_a_loop_over_pairs_and_pooled_ones_with_its_sums(random_pair):
    accuracies, n_lesions, all_counts, n_found = [], [], [], 0
    for ndim in (2, 3):
        for seed in range(150):
            prediction, reference = random_pair(np.random.default_rng(1000 * ndim + seed), ndim)
            found = evaluate_case(prediction, reference, (1,) * ndim)
            counts = by_loop(prediction, reference)
            expected = [tp / (tp + fp + fn) if tp + fp + fn else np.nan for tp, fp, fn in counts]
            np.testing.assert_array_equal([found[name] for name in NAMES], expected)
            np.testing.assert_allclose(found["accuracy_50_95"], np.mean(expected), rtol=1e-15)
            accuracies.append([found[name] for name in NAMES])
            n_lesions.append(found["n_prediction"] + found["n_reference"])
            all_counts.append(counts)
            n_found += 0 < expected[0] < 1
    assert n_found > 60
    for tp_fp_fn, of_threshold in zip(np.sum(all_counts, axis=0), np.transpose(accuracies), strict=True):
        assert pooled_accuracy(of_threshold, np.array(n_lesions)) == tp_fp_fn[0] / tp_fp_fn.sum()


def test_a_shifted_square_counts_up_to_its_overlap():
    reference = np.zeros((20, 30), np.uint8)
    reference[2:8, 3:9] = 1
    # 30 of 42 pixels: IoU 0.714.
    found = evaluate_case(np.roll(reference, 1, axis=1), reference, (1, 1))
    assert [found[name] for name in NAMES] == [1] * 5 + [0] * 5 and found["accuracy_50_95"] == 0.5


@pytest.mark.parametrize(("length", "threshold"), [(12, 60), (13, 65), (14, 70), (18, 90), (19, 95)])
def test_an_iou_of_exactly_the_threshold_counts(length, threshold):
    # StarDist and Cellpose compare with "at least"; 0.6 and 0.7 have no exact binary fraction.
    reference = np.ones((1, 20), np.uint8)
    found = evaluate_case((np.arange(20) < length)[None].astype(np.uint8), reference, (1, 1))
    assert found[f"accuracy_{threshold}"] == 1 and found.get(f"accuracy_{threshold + 5}", 0) == 0


def test_a_prediction_over_two_halves_is_matched_once():
    halves = np.array([[1, 1, 2, 2]])
    whole = np.ones_like(halves)
    for maps in ((whole, halves), (halves, whole)):
        # Both pairs have an IoU of 0.5: one TP, and one lesion left.
        assert evaluate_case(*maps, (1, 1))["accuracy_50"] == 0.5


@pytest.mark.parametrize(("policy", "expected"), [("nan", np.nan), ("worst", 0)])
def test_it_is_undefined_for_two_empty_maps_only(policy, expected):
    empty, one = np.zeros((4, 4), np.uint8), np.eye(4, dtype=np.uint8)
    found = evaluate_case(empty, empty, (1, 1), undefined=policy)
    np.testing.assert_equal([found[name] for name in (*NAMES, MEAN_ACCURACY)], [expected] * 11)
    for maps in ((empty, one), (one, empty)):
        found = evaluate_case(*maps, (1, 1), undefined=policy)
        assert [found[name] for name in (*NAMES, MEAN_ACCURACY)] == [0] * 11
    assert list(ACCURACIES) == NAMES
