"""FROC and average precision are those of a slow loop over thresholds, and of picai_eval where the rules agree."""

import math

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation.detection.curves import FALSE_POSITIVE_RATES, CohortSteps
from nnunetv2_conflunet.evaluation.detection.metrics import (
    NAMES,
    Cohort,
    paired_differences,
    thresholds_of,
    with_intervals,
)
from nnunetv2_conflunet.evaluation.detection.steps import CaseSteps, steps_of_case
from nnunetv2_conflunet.evaluation.metrics.case import assess, evaluate_case
from nnunetv2_conflunet.evaluation.metrics.matching import MATCHING_RULES
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.utilities.errors import InputError


class Case:
    """Two maps with a confidence for each predicted id; few different values, so that ties are common."""

    def __init__(self, rng, random_pair, n_values):
        self.prediction, self.reference = random_pair(rng, int(rng.integers(2, 4)))
        ids = np.unique(self.prediction[self.prediction > 0])
        values = np.linspace(0.1, 0.9, n_values)
        self.confidence = {int(i): float(rng.choice(values)) for i in ids}

    @property
    def spacing_mm(self):
        return (1.0,) * self.prediction.ndim

    def cut(self, threshold):
        """The map that a model with this threshold would have written."""
        kept = [i for i, value in self.confidence.items() if value >= threshold]
        return np.where(np.isin(self.prediction, kept), self.prediction, 0)

    def steps(self, rule, iou_threshold):
        foreground = Foreground.of(self.prediction, self.reference)
        evaluation = assess(foreground, self.spacing_mm, CaseSettings(iou_threshold, rule))
        table = evaluation.table
        confidence = np.array([self.confidence[int(i)] for i in table.prediction_ids])
        return steps_of_case(table, evaluation.confluent, confidence, rule, iou_threshold)


def counts_at(case, threshold, rule, iou_threshold):
    """What the evaluation of the cut map counts."""
    metrics = evaluate_case(
        case.cut(threshold), case.reference, case.spacing_mm, matching=rule, iou_threshold=iou_threshold
    )
    return {
        "found": metrics["n_reference"] - metrics["FN"],
        "true": metrics["TP"],
        "false": metrics["FP"],
        "found_CLU": metrics["n_CLU"] - metrics["FN_CLU"],
        "true_CLU": metrics["TP_CLU"],
        "false_CLU": metrics["FP_CLU"],
        "n": metrics["n_reference"],
        "n_CLU": metrics["n_CLU"],
    }


def slow_curves(cases, rule, iou_threshold):
    """FROC and AP from evaluations of every cut map, one threshold after the other."""
    thresholds = sorted({value for case in cases for value in case.confidence.values()}, reverse=True)
    totals = []
    for threshold in thresholds:
        rows = [counts_at(case, threshold, rule, iou_threshold) for case in cases]
        totals.append({name: sum(row[name] for row in rows) for name in rows[0]})
    nothing = [counts_at(case, 2.0, rule, iou_threshold) for case in cases]
    found = {}
    for suffix in ("", "_CLU"):
        n = sum(row[f"n{suffix}"] for row in nothing)
        if n == 0:
            found[f"froc{suffix}"], found[f"ap{suffix}"] = [math.nan] * len(FALSE_POSITIVE_RATES), math.nan
            continue
        froc, ap, before = [], 0.0, 0.0
        for rate in FALSE_POSITIVE_RATES:
            reached = [row[f"found{suffix}"] / n for row in totals if row["false"] / len(cases) <= rate]
            froc.append(max(reached, default=0.0))
        for row in totals:
            true, false = row[f"true{suffix}"], row[f"false{suffix}"]
            sensitivity = row[f"found{suffix}"] / n
            ap += (sensitivity - before) * (true / (true + false) if true + false else 0.0)
            before = sensitivity
        found[f"froc{suffix}"], found[f"ap{suffix}"] = froc, ap
    return found


@pytest.mark.parametrize("rule", MATCHING_RULES)
def test_curves_equal_a_loop_over_cut_maps(rule, random_pair):
    # With 20 cohorts a rule and 1 to 6 cases each: about 300 cases.
    rng = np.random.default_rng(sum(map(ord, rule)))
    for _ in range(20):
        n_values = int(rng.choice([2, 4, 40]))
        cases = [Case(rng, random_pair, n_values) for _ in range(rng.integers(1, 7))]
        for iou_threshold in (0.1, 0.5):
            steps = CohortSteps.of([case.steps(rule, iou_threshold) for case in cases])
            curves, slow = steps.curves(np.ones((1, len(cases)))), slow_curves(cases, rule, iou_threshold)
            for suffix in ("", "_CLU"):
                np.testing.assert_allclose(
                    curves.sensitivity_at(suffix=suffix)[0], slow[f"froc{suffix}"], rtol=1e-12, err_msg=rule
                )
                np.testing.assert_allclose(curves.average_precision(suffix)[0], slow[f"ap{suffix}"], rtol=1e-12)


@pytest.mark.parametrize("rule", MATCHING_RULES)
def test_each_step_has_the_counts_of_the_cut_map(rule, random_pair):
    rng = np.random.default_rng(5)
    for _ in range(30):
        case = Case(rng, random_pair, 6)
        steps = case.steps(rule, 0.1)
        for confidence, counts in zip(steps.confidence, np.cumsum(steps.counts, axis=0), strict=True):
            expected = counts_at(case, confidence, rule, 0.1)
            assert counts.tolist() == [expected[name] for name in list(expected)[:6]]
        assert steps.n_reference == len(np.unique(case.reference)) - (0 in case.reference)


def test_curves_equal_those_of_picai_eval():
    """Lesions far apart, at most one prediction on each: then its one matching of all candidates is ours."""
    picai = pytest.importorskip("picai_eval")
    rng = np.random.default_rng(3)
    maps, truths, cases = [], [], []
    for _ in range(300):
        reference, prediction, detection = (np.zeros((8, 8, 60), kind) for kind in (int, int, np.float32))
        confidence = []
        for i in range(rng.integers(0, 7)):
            at = slice(8 * i + 1, 8 * i + 5)
            if rng.random() < 0.8:
                reference[2:6, 2:6, at] = i + 1
            if rng.random() < 0.8:
                confidence.append(rng.choice(np.arange(1, 100)) / 100)
                shifted = slice(8 * i + 1 + rng.integers(0, 3), 8 * i + 5)
                prediction[2:6, 2:6, shifted] = len(confidence)
                detection[2:6, 2:6, shifted] = confidence[-1]
        evaluation = assess(Foreground.of(prediction, reference), (1, 1, 1), CaseSettings())
        confidence = np.array(confidence, np.float32).astype(float)
        cases.append(steps_of_case(evaluation.table, evaluation.confluent, confidence))
        maps.append(detection)
        truths.append((reference > 0).astype(int))
    theirs = picai.evaluate(maps, truths, allow_unmatched_candidates_with_minimal_overlap=False, num_parallel_calls=1)
    curves = CohortSteps.of(cases).curves(np.ones((1, len(cases))))
    assert theirs.num_lesions == sum(case.n_reference for case in cases) > 500
    assert curves.average_precision()[0] == pytest.approx(theirs.AP, abs=1e-12)
    rates = (1 / 8, 1 / 4, 1 / 2)
    expected = [theirs.lesion_TPR_at_FPR(rate) for rate in rates]
    assert curves.sensitivity_at(rates)[0].tolist() == pytest.approx(expected, abs=1e-7)


def line(*runs):
    """A row of 40 pixels with lesions {id: (first, end)}."""
    row = np.zeros((1, 40), int)
    for i, (first, end) in runs:
        row[0, first:end] = i
    return row


def steps_by_hand(prediction, reference, confidence, rule="paper"):
    evaluation = assess(Foreground.of(prediction, reference), (1, 1), CaseSettings(matching=rule))
    return steps_of_case(evaluation.table, evaluation.confluent, np.array(confidence), rule)


def test_a_lesion_that_several_predictions_cover_is_found_by_the_surest_of_them():
    reference = line((1, (0, 10)))
    # IoU 0.4 and 0.6: at 0.9 the first alone finds the lesion; at 0.8 one of them is false.
    steps = steps_by_hand(line((1, (0, 4)), (2, (4, 10))), reference, [0.9, 0.8])
    assert steps.confidence.tolist() == [0.9, 0.8]
    assert steps.counts[:, :3].tolist() == [[1, 1, 0], [0, 0, 1]]


def test_a_displaced_prediction_takes_its_second_choice_where_the_rule_allows():
    # The prediction at 0.9 has IoU 6/10 with lesion 1 and 3/14 with lesion 2; that at 0.8 has IoU 8/10 with lesion 1.
    reference = line((1, (2, 12)), (2, (12, 19)))
    maps = line((1, (2, 10)), (2, (10, 15))), reference
    # IoU of prediction 2: 2 / 13 with lesion 1, 3 / 9 with lesion 2.
    steps = steps_by_hand(*maps, [0.8, 0.9], "greedy")
    assert steps.counts[:, :3].tolist() == [[1, 1, 0], [1, 1, 0]]
    # Now prediction 2 prefers lesion 1 (4 / 11 against 1 / 11) until prediction 1 (7 / 9) takes it.
    reference = line((1, (2, 11)), (2, (11, 15)))
    prediction = line((1, (2, 6)), (2, (6, 13)))
    # Prediction 2: 5 / 11 with lesion 1 and 2 / 9 with lesion 2. Prediction 1: 4 / 9 with lesion 1.
    for rule, counts in (
        ("greedy", [[1, 1, 0], [0, 0, 1]]),
        # 4 / 9 + 2 / 9 is more than 5 / 11.
        ("hungarian", [[1, 1, 0], [1, 1, 0]]),
        ("paper", [[1, 1, 0], [0, 0, 1]]),
        ("isbi2024", [[1, 1, 0], [0, 1, 0]]),
    ):
        assert steps_by_hand(prediction, reference, [0.5, 0.7], rule).counts[:, :3].tolist() == counts, rule


def test_equal_confidences_enter_together():
    reference = line((1, (0, 5)))
    found = steps_by_hand(line((1, (0, 5)), (2, (10, 15))), reference, [0.7, 0.7])
    assert found.counts[:, :3].tolist() == [[1, 1, 1]]
    # Also between patients: one point of the curve has both, so that no order of files can help.
    true = CaseSteps(1, 0, np.array([0.7]), np.array([[1, 1, 0, 0, 0, 0]]))
    false = CaseSteps(1, 0, np.array([0.7]), np.array([[0, 0, 1, 0, 0, 0]]))
    for order in ([true, false], [false, true]):
        curves = CohortSteps.of(order).curves(np.ones((1, 2)))
        assert curves.average_precision().tolist() == [0.25]
        assert curves.sensitivity_at((0.25, 0.5)).tolist() == [[0, 0.5]]


def test_patients_without_lesions_count_among_the_patients():
    found = CaseSteps(1, 0, np.array([0.7]), np.array([[1, 1, 0, 0, 0, 0]]))
    healthy = CaseSteps(0, 0, np.array([0.9]), np.array([[0, 0, 1, 0, 0, 0]]))
    empty = CaseSteps(0, 0, np.zeros(0), np.zeros((0, 6), int))
    rates = (1 / 4, 1 / 3, 1 / 2)
    curves = CohortSteps.of([found, healthy]).curves(np.ones((1, 2)))
    assert curves.sensitivity_at(rates).tolist() == [[0, 0, 1]]
    # One false positive in four patients.
    curves = CohortSteps.of([found, healthy, empty, empty]).curves(np.ones((1, 4)))
    assert curves.sensitivity_at(rates).tolist() == [[1, 1, 1]]
    assert curves.average_precision().tolist() == [0.5]


def test_cohorts_without_lesions_or_predictions():
    empty = CaseSteps(0, 0, np.zeros(0), np.zeros((0, 6), int))
    missed = CaseSteps(3, 2, np.zeros(0), np.zeros((0, 6), int))
    none = CohortSteps.of([empty, empty]).curves(np.ones((1, 2)))
    assert np.isnan(none.sensitivity_at()).all() and np.isnan(none.average_precision()).all()
    nothing = CohortSteps.of([empty, missed]).curves(np.ones((1, 2)))
    for suffix in ("", "_CLU"):
        assert not nothing.sensitivity_at(suffix=suffix).any() and nothing.average_precision(suffix).tolist() == [0]
    intervals = with_intervals(Cohort({0.1: [empty, missed], 0.5: [empty, missed]}))
    # Resamples of the empty case alone are undefined and left out.
    assert intervals["FROC"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    alone = with_intervals(Cohort({0.1: [missed], 0.5: [missed]}))
    assert alone["FROC"]["value"] == 0 and np.isnan(alone["FROC"]["low"])


def test_intervals_are_those_of_the_cohorts_that_were_drawn(random_pair):
    rng = np.random.default_rng(8)
    cases = [Case(rng, random_pair, 10) for _ in range(6)]
    steps = {threshold: [case.steps("paper", threshold) for case in cases] for threshold in (0.1, 0.5)}
    cohort = Cohort(steps)
    resampled = cohort.resampled(seed=4, n_resamples=25)
    weights = np.random.default_rng(4).multinomial(6, np.full(6, 1 / 6), 25)
    np.testing.assert_array_equal(cohort.resampled(seed=4, n_resamples=25), resampled)
    for row, drawn in zip(resampled, weights, strict=True):
        # The same cohort with its patients written out, one copy each.
        copies = {t: [case for case, n in zip(of, drawn, strict=True) for _ in range(n)] for t, of in steps.items()}
        np.testing.assert_allclose(row, Cohort(copies).point(), rtol=1e-12)


def test_differences_are_paired():
    """The second method finds one lesion less in each patient: 1 of 2, whichever patients are drawn."""
    both = CaseSteps(2, 0, np.array([0.9]), np.array([[2, 2, 0, 0, 0, 0]]))
    one = CaseSteps(2, 0, np.array([0.9]), np.array([[1, 1, 0, 0, 0, 0]]))
    first, second = (Cohort({0.1: [of] * 5, 0.5: [of] * 5}) for of in (both, one))
    found = paired_differences(first, second)
    ends = {"low": 0.5, "high": 0.5}
    assert found["FROC"] == {"n": 5, "mean_first": 1.0, "mean_second": 0.5, "difference": 0.5, **ends}
    assert list(found) == list(NAMES)


def test_steps_survive_json(random_pair):
    case = Case(np.random.default_rng(0), random_pair, 5)
    steps = case.steps("paper", 0.1)
    again = CaseSteps.from_json(steps.to_json())
    assert again.to_json() == steps.to_json() and again.counts.shape == steps.counts.shape
    empty = CaseSteps(0, 0, np.zeros(0), np.zeros((0, 6), np.int64))
    assert CaseSteps.from_json(empty.to_json()).counts.shape == (0, 6)


def test_the_froc_has_the_threshold_of_the_evaluation():
    assert thresholds_of(0.3) == (0.3, 0.1, 0.5) and thresholds_of(0.5) == (0.5, 0.1)


@pytest.mark.parametrize("confidence", [[0.5], [0.5, math.nan]])
def test_every_prediction_needs_a_confidence(confidence):
    with pytest.raises(InputError, match="every lesion needs a finite confidence"):
        steps_by_hand(line((1, (0, 2)), (2, (5, 8))), line(), confidence)
