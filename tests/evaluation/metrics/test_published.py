"""The published metrics of confluent lesions agree with a second program, written from their formulas."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.evaluation import evaluate_case

# Suffix, tier, and number of neighbors in a structure of SciPy.
VARIANTS = (("", 0, 1), ("_conn_26", 0, 3), ("_tier_1", 1, 1), ("_tier_1_conn_26", 1, 3))
RATIOS = ("Recall_CLU", "Precision_CLU", "F1_CLU", "DSC_TP_CLU", "PQ_CLU")


def ids_of(instances):
    return [i for i in np.unique(instances).tolist() if i]


def confluent_ids(reference, tier, rank):
    """Ids in a component of the dilated mask that holds several."""
    mask = reference > 0
    if tier:
        mask = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(mask.ndim, 1), iterations=tier)
    components, n = ndimage.label(mask, ndimage.generate_binary_structure(mask.ndim, min(rank, mask.ndim)))
    groups = [ids_of(reference[components == j]) for j in range(1, n + 1)]
    return sorted({i for group in groups if len(group) > 1 for i in group})


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def match_twice(prediction, reference, threshold):
    """The kept pairs as {reference: prediction}, and the predictions that lost their reference to another."""
    claims = {}
    for p in ids_of(prediction):
        ious = {r: iou(prediction == p, reference == r) for r in ids_of(reference)}
        best = max(ious, key=lambda r: (ious[r], -r), default=None)
        if best is not None and ious[best] > threshold:
            claims.setdefault(best, []).append((-ious[best], p))
    kept = {r: min(claimants)[1] for r, claimants in claims.items()}
    lost = [p for claimants in claims.values() for _, p in sorted(claimants)[1:]]
    return kept, lost


def published(prediction, reference, threshold=0.1):
    e = 1e-6
    _, lost = match_twice(prediction, reference, threshold)
    fp = len(lost)
    out = {"FP_CLU": fp}
    for suffix, tier, rank in VARIANTS:
        clu = confluent_ids(reference, tier, rank)
        units = np.where(np.isin(reference, clu), reference, 0)
        kept, _ = match_twice(prediction, units, threshold)
        tp, fn = len(kept), len(clu) - len(kept)
        pairs = [(prediction == p, reference == r) for r, p in kept.items()]
        recall = 1.0 if not clu else tp / (tp + fn + e)
        precision = 1.0 if not clu and fp == 0 else tp / (tp + fp + e)
        dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]
        mean_dice = math.nan if not clu else sum(dice) / len(dice) if dice else 0.0
        sq = sum(itertools.starmap(iou, pairs)) / max(tp, e)
        pq = sq * tp / max(tp + 0.5 * fp + 0.5 * fn, e)
        if not clu and not prediction.any():
            pq = 1.0
        f1 = 2 * recall * precision / (recall + precision + e)
        counts = {"n_CLU": len(clu), "TP_CLU": tp, "FN_CLU": fn}
        ratios = dict(zip(RATIOS, (recall, precision, f1, mean_dice, pq), strict=True))
        out |= {f"{name}{suffix}": value for name, value in (counts | ratios).items()}
    return out


def assert_same(found, expected):
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0, abs=1e-15, nan_ok=True), name


def test_three_hundred_random_pairs_agree(random_pair):
    total = dict.fromkeys(("FP_CLU", "n_CLU", "n_CLU_conn_26", "n_CLU_tier_1", "n_CLU_tier_1_conn_26", "TP_CLU"), 0)
    for ndim, seed in itertools.product((2, 3), range(150)):
        rng = np.random.default_rng(1000 * ndim + seed)
        maps = random_pair(rng, ndim)
        threshold = rng.choice([0.0, 0.1, 0.25])
        spacing_mm = rng.uniform(0.5, 3, ndim)
        found = evaluate_case(*maps, spacing_mm, clu="published", iou_threshold=threshold, beta=2.0)
        assert_same(found, published(*maps, threshold))
        assert not {"SQ_CLU", "F_beta_CLU", "FP_CLU_tier_1"} & set(found) and "F_beta" in found
        total = {name: count + found[name] for name, count in total.items()}
    # All four sets of confluent lesions differ, and predictions lose their reference often.
    assert len({count for name, count in total.items() if name.startswith("n_CLU")}) == 4 and min(total.values()) > 20


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        ((0, 2, 0), {"n_CLU": 2, "n_CLU_conn_26": 2, "n_CLU_tier_1": 2, "n_CLU_tier_1_conn_26": 2}),
        # Contact at a corner.
        ((2, 2, 2), {"n_CLU": 0, "n_CLU_conn_26": 2, "n_CLU_tier_1": 2, "n_CLU_tier_1_conn_26": 2}),
        # A gap of two voxels: their dilations touch at a face.
        ((0, 4, 0), {"n_CLU": 0, "n_CLU_conn_26": 0, "n_CLU_tier_1": 2, "n_CLU_tier_1_conn_26": 2}),
        # The dilations touch at an edge only.
        ((4, 2, 0), {"n_CLU": 0, "n_CLU_conn_26": 0, "n_CLU_tier_1": 0, "n_CLU_tier_1_conn_26": 2}),
        ((0, 6, 0), {"n_CLU": 0, "n_CLU_conn_26": 0, "n_CLU_tier_1": 0, "n_CLU_tier_1_conn_26": 0}),
    ],
)
@pytest.mark.parametrize("start", [0, 5])
def test_tiers_and_connectivities_on_two_cubes(step, counts, start):
    # At start 0 the dilation meets the border of the image.
    reference = np.zeros((start + 8,) * 3, np.uint8)
    for i, at in ((1, (start,) * 3), (2, tuple(start + s for s in step))):
        reference[tuple(slice(a, a + 2) for a in at)] = i
    found = evaluate_case(reference, reference, (1, 1, 1), clu="published")
    assert {name: found[name] for name in counts} == counts


def test_isolated_lesions_do_not_count_against_a_perfect_prediction():
    reference = np.array([[1, 1, 2, 2, 0, 0, 0, 3, 3]])
    found = evaluate_case(reference, reference, (1, 1), clu="published")
    assert (found["TP_CLU"], found["FP_CLU"], found["FN_CLU"]) == (2, 0, 0)
    assert found["Recall_CLU"] == found["Precision_CLU"] == 2 / 2.000001 and found["PQ_CLU"] == 1


def test_a_second_fragment_is_a_false_positive_wherever_it_lies():
    # The isolated lesion 3 is split into two fragments of IoU 0.5 each; the default counts it outside the CLUs.
    reference = np.array([[1, 1, 2, 2, 0, 0, 0, 3, 3, 3, 3]])
    prediction = np.array([[1, 1, 2, 2, 0, 0, 0, 3, 3, 4, 4]])
    found = evaluate_case(prediction, reference, (1, 1), clu="published")
    assert found["FP_CLU"] == 1 and found["Precision_CLU"] == 2 / 3.000001 and found["PQ_CLU"] == 2 / 2.5
    shared = evaluate_case(prediction, reference, (1, 1))
    assert shared["FP_CLU"] == 0 and shared["Precision_CLU"] == 1


def test_a_merged_pair_may_match_a_unit_that_the_matching_of_all_lesions_leaves_out():
    # The prediction covers the isolated lesion 3 best, and above the threshold the unit 1.
    reference = np.array([[2, 2, 1, 1, 0, 3, 3, 3, 3]])
    prediction = np.array([[0, 0, 9, 9, 9, 9, 9, 9, 9]])
    assert evaluate_case(prediction, reference, (1, 1), clu="published")["TP_CLU"] == 1
    assert evaluate_case(prediction, reference, (1, 1))["TP_CLU"] == 0


@pytest.mark.parametrize("undefined", ["nan", "worst", "authors"])
def test_conventions_without_a_confluent_lesion(undefined):
    empty, one = np.zeros((1, 4), np.uint8), np.array([[1, 1, 0, 0]])
    for maps, pq in (((empty, empty), 1), ((empty, one), 1), ((one, one), 0), ((one, empty), 0)):
        found = evaluate_case(*maps, (1, 1), clu="published", undefined=undefined)
        assert (found["Recall_CLU"], found["Precision_CLU"], found["PQ_CLU_tier_1"]) == (1, 1, pq)
        assert found["F1_CLU"] == 2 / 2.000001
        assert np.isnan(found["DSC_TP_CLU"]) and np.isnan(found["DSC_TP_CLU_tier_1"])
    # Two fragments of an isolated lesion.
    found = evaluate_case(np.array([[1, 1, 2, 2]]), np.ones((1, 4), int), (1, 1), clu="published")
    assert (found["Recall_CLU"], found["Precision_CLU"], found["F1_CLU"], found["PQ_CLU"]) == (1, 0, 0, 0)
