"""The fast evaluation agrees with a slow one, one mask a lesion, on hundreds of random pairs."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings

NEIGHBORS = {6: 1, 18: 2, 26: 3}


def masks_of(instances):
    return {int(label): instances == label for label in np.unique(instances) if label != 0}


def iou_of(a, b):
    return (a & b).sum() / (a | b).sum()


def dice_of(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def overlapping(predicted, referred):
    """{(prediction, reference): IoU} of all pairs that overlap."""
    pairs = itertools.product(predicted, referred)
    return {(p, r): iou_of(predicted[p], referred[r]) for p, r in pairs if (predicted[p] & referred[r]).any()}


def match_many_to_one(ious, threshold):
    pairs = []
    for p in sorted({p for p, _ in ious}):
        best = None
        for r in sorted(r for q, r in ious if q == p):
            if ious[p, r] > threshold and (best is None or ious[p, r] > ious[p, best]):
                best = r
        if best is not None:
            pairs.append((p, best))
    return pairs


def match_paper(ious, threshold):
    kept = {}
    for p, r in match_many_to_one(ious, threshold):
        if r not in kept or ious[p, r] > ious[kept[r], r]:
            kept[r] = p
    return sorted((p, r) for r, p in kept.items())


def match_greedy(ious, threshold):
    pairs = []
    for p, r in sorted(ious, key=lambda pair: (-ious[pair], pair)):
        if ious[p, r] > threshold and all(p != q and r != s for q, s in pairs):
            pairs.append((p, r))
    return sorted(pairs)


def best_sum_one_to_one(ious, threshold):
    """Greatest sum of IoU over all one-to-one sets, by trying every set."""
    pairs = [pair for pair in ious if ious[pair] > threshold]

    def search(rest):
        if not rest:
            return 0.0
        (p, r), *others = rest
        with_first = ious[p, r] + search([(q, s) for q, s in others if q != p and s != r])
        return max(with_first, search(others))

    return search(pairs)


def confluent_ids(instances, connectivity, definition):
    structure = ndimage.generate_binary_structure(instances.ndim, min(NEIGHBORS[connectivity], instances.ndim))
    components, n = ndimage.label(instances > 0, structure)
    masks = masks_of(instances)
    found = set()
    for i, mask in masks.items():
        for j in range(1, n + 1):
            component = components == j
            if definition == "eq3" and 0 < iou_of(mask, component) < 1:
                found.add(i)
            others = any((component & other).any() for k, other in masks.items() if k != i)
            if definition == "shared" and (component & mask).any() and others:
                found.add(i)
    return found


def holds(whole, part):
    """More than half of the part lies in the whole."""
    return 2 * (whole & part).sum() > part.sum()


def divide(a, b):
    return a / b if b else math.nan


def evaluate(prediction, reference, spacing_mm, pairs, connectivity=26, definition="shared"):
    """All metrics for given matched pairs."""
    predicted, referred = masks_of(prediction), masks_of(reference)
    ious = overlapping(predicted, referred)
    dices = {(p, r): dice_of(predicted[p], referred[r]) for p, r in pairs}
    voxel = math.prod(spacing_mm)
    p_mask, r_mask = prediction > 0, reference > 0
    free_p = set(predicted) - {p for p, _ in pairs}
    free_r = set(referred) - {r for _, r in pairs}
    tp, fp, fn = len(pairs), len(free_p), len(free_r)
    out = {
        "TP": tp,
        "FP": fp,
        "FN": fn,
        "n_prediction": len(predicted),
        "n_reference": len(referred),
        "DiC": abs(len(predicted) - len(referred)),
        "count_difference": len(predicted) - len(referred),
        "Recall": divide(tp, tp + fn),
        "DSC": divide(2 * (p_mask & r_mask).sum(), p_mask.sum() + r_mask.sum()),
        "DSC_TP": divide(sum(dices.values()), tp),
        "SQ": divide(sum(ious[pair] for pair in pairs), tp),
        "FP_volume_mm3": (p_mask & ~r_mask).sum() * voxel,
        "FN_volume_mm3": (r_mask & ~p_mask).sum() * voxel,
        "load_prediction_mm3": p_mask.sum() * voxel,
        "load_reference_mm3": r_mask.sum() * voxel,
        "load_difference_mm3": (int(p_mask.sum()) - int(r_mask.sum())) * voxel,
        "load_error_mm3": abs(int(p_mask.sum()) - int(r_mask.sum())) * voxel,
        "FP_lesion_volume_mm3": sum(predicted[p].sum() for p in free_p) * voxel,
        "FN_lesion_volume_mm3": sum(referred[r].sum() for r in free_r) * voxel,
    }
    out["Precision"] = tp / len(predicted) if predicted else (0.0 if referred else math.nan)
    out["F1"] = out["RQ"] = divide(tp, tp + fp / 2 + fn / 2)
    out["PQ"] = divide(sum(ious[pair] for pair in pairs), tp + fp / 2 + fn / 2)
    r = 0.001
    scale = (1 - r) * r_mask.sum() / (r * (~r_mask).sum()) if r_mask.any() and not r_mask.all() else 1
    both = 2 * (p_mask & r_mask).sum()
    out["nDSC"] = divide(both, both + scale * (p_mask & ~r_mask).sum() + (r_mask & ~p_mask).sum())

    clu = confluent_ids(reference, connectivity, definition)
    clu_pairs = [pair for pair in pairs if pair[1] in clu]
    fp_clu = 0
    for p in free_p:
        overlaps = [(-ious[q, r], r) for q, r in ious if q == p]
        fp_clu += bool(overlaps) and min(overlaps)[1] in clu
    tp_clu, fn_clu = len(clu_pairs), len(clu & free_r)
    out |= {"n_CLU": len(clu), "TP_CLU": tp_clu, "FP_CLU": fp_clu, "FN_CLU": fn_clu}
    weight = tp_clu + fp_clu / 2 + fn_clu / 2
    out["Recall_CLU"] = divide(tp_clu, tp_clu + fn_clu)
    out["Precision_CLU"] = math.nan if not clu else tp_clu / (tp_clu + fp_clu) if tp_clu + fp_clu else 0.0
    out["F1_CLU"] = tp_clu / weight if clu else math.nan
    out["DSC_TP_CLU"] = divide(sum(dices[pair] for pair in clu_pairs), tp_clu)
    out["SQ_CLU"] = divide(sum(ious[pair] for pair in clu_pairs), tp_clu)
    out["PQ_CLU"] = sum(ious[pair] for pair in clu_pairs) / weight if clu else math.nan

    held_r = {p: sum(holds(mask, referred[r]) for r in referred) for p, mask in predicted.items()}
    held_p = {r: sum(holds(mask, predicted[p]) for p in predicted) for r, mask in referred.items()}
    out["n_merging_predictions"] = sum(n > 1 for n in held_r.values())
    out["n_merged_references"] = sum(n for n in held_r.values() if n > 1)
    out["n_split_references"] = sum(n > 1 for n in held_p.values())
    out["n_splitting_predictions"] = sum(n for n in held_p.values() if n > 1)
    return out


def assert_same(found, expected):
    assert set(expected) <= set(found)
    for name, value in expected.items():
        if isinstance(value, int):
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name


def pairs_of(case):
    predictions = case.table.prediction_ids[case.matches.prediction].tolist()
    references = case.table.reference_ids[case.matches.reference].tolist()
    return list(zip(predictions, references, strict=True))


CASES = [(ndim, seed) for ndim in (2, 3) for seed in range(150)]
REFERENCE_MATCHING = {"paper": match_paper, "isbi2024": match_many_to_one, "greedy": match_greedy}


@pytest.mark.parametrize("rule", ["paper", "isbi2024", "greedy", "hungarian"])
@pytest.mark.parametrize("definition", ["shared", "eq3"])
def test_all_metrics_agree(rule, definition, random_pair):
    total = {"TP": 0, "FP": 0, "FN": 0, "n_CLU": 0, "n_merging_predictions": 0, "n_split_references": 0}
    for ndim, seed in CASES:
        rng = np.random.default_rng(1000 * ndim + seed)
        prediction, reference = random_pair(rng, ndim)
        threshold = rng.choice([0.0, 0.1, 0.25, 0.5])
        connectivity = int(rng.choice([6, 18, 26]))
        spacing_mm = tuple(rng.uniform(0.5, 3, size=ndim))
        options = {"matching": rule, "clu": definition, "iou_threshold": threshold, "connectivity": connectivity}
        case = assess(Foreground.of(prediction, reference), spacing_mm, CaseSettings(**options))
        pairs = pairs_of(case)
        ious = overlapping(masks_of(prediction), masks_of(reference))
        if rule == "hungarian":
            # Sets of equal sum are SciPy's choice; the sum itself is not.
            assert len({p for p, _ in pairs}) == len({r for _, r in pairs}) == len(pairs)
            assert all(ious[pair] > threshold for pair in pairs)
            assert sum(ious[pair] for pair in pairs) == pytest.approx(best_sum_one_to_one(ious, threshold), abs=1e-12)
        else:
            assert pairs == REFERENCE_MATCHING[rule](ious, threshold)
        assert_same(case.metrics, evaluate(prediction, reference, spacing_mm, pairs, connectivity, definition))
        total = {name: count + case.metrics[name] for name, count in total.items()}
    # The pairs are no empty exercise: everything that is counted occurs often.
    assert min(total.values()) > 20, total
