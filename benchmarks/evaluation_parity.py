"""Agreement with panoptica where the rules coincide, and its cost.

panoptica pins older releases of NumPy and cc3d, so this runs in a separate environment, with the project on PYTHONPATH
(`make parity`). It uses only the array functions of the evaluation, which need NumPy, SciPy and cc3d. panoptica matches
in order of decreasing IoU above a threshold, which is the rule "greedy" here; it also matches pairs exactly at the
threshold, so these are avoided. Ids stay below 128.
"""

import contextlib
import io
import sys
import time

import numpy as np
from measuring import SHAPE, SPACING_MM, ball_pair, median_seconds
from panoptica import InputType, NaiveThresholdMatching, Panoptica_Evaluator

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings

N_PAIRS = 200
THRESHOLD = 0.1


def random_pair(rng):
    """Boxes and a displaced copy with some lesions lost, merged or split; ids below 128."""
    shape = tuple(rng.integers(10, 20, size=3))
    reference = np.zeros(shape, np.uint8)
    for label in range(1, rng.integers(2, 12)):
        start, size = [rng.integers(0, n - 2) for n in shape], rng.integers(2, 6, size=3)
        reference[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = label
    prediction = np.roll(reference, rng.integers(-1, 2, size=3), axis=(0, 1, 2))
    for label in range(1, 12):
        choice, own = rng.random(), prediction == label
        if choice < 0.15:
            prediction[own] = 0
        elif choice < 0.3:
            prediction[own] = label + 1
        elif choice < 0.45:
            upper = np.indices(shape)[0] > np.mean(np.nonzero(own)[0] if own.any() else 0)
            prediction[own & upper] = 50 + label
    return prediction, reference


def main():
    evaluator = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(matching_threshold=THRESHOLD),
    )
    rng = np.random.default_rng(0)
    compared, differing, matched = 0, [], 0
    while compared < N_PAIRS:
        prediction, reference = random_pair(rng)
        case = assess(Foreground.of(prediction, reference), (1.0, 1.0, 1.0), CaseSettings(THRESHOLD, "greedy"))
        iou = case.table.pair_iou
        # The programs treat ties and pairs at the threshold differently.
        if len(set(iou)) < len(iou) or (iou == THRESHOLD).any() or not case.metrics["TP"]:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            result = evaluator.evaluate(prediction, reference, verbose=False)["ungrouped"]
        expected = {"TP": result.tp, "FP": result.fp, "FN": result.fn, "SQ": result.sq, "PQ": result.pq}
        if any(abs(case.metrics[name] - value) > 1e-12 for name, value in expected.items()):
            differing.append((compared, expected, {name: case.metrics[name] for name in expected}))
        compared += 1
        matched += case.metrics["TP"]
    print(f"{compared} pairs with {matched} matched lesions: {len(differing)} differ from panoptica")
    for case in differing[:5]:
        print(*case)
    large = [instances.astype(np.uint8) for instances in ball_pair(60)]
    # Wall time, since panoptica may start processes.
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = median_seconds(lambda: evaluator.evaluate(*large, verbose=False), 3, time.perf_counter)
    ours = median_seconds(lambda: evaluate_case(*large, SPACING_MM), clock=time.perf_counter)
    print(f"A pair of {SHAPE} maps with 60 lesions: panoptica {theirs:.3f} s (without confluence), here {ours:.4f} s")
    print(f"  {theirs / ours:.1f} x")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
