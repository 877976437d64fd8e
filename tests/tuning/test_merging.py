"""Learning when touching pieces are one lesion, on model folders whose answer is known."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.merging import FEATURES, MergeRule
from nnunetv2_conflunet.tuning import Grid, TuningSettings, determine_postprocessing
from nnunetv2_conflunet.tuning.description import describe
from nnunetv2_conflunet.tuning.merging import (
    FEWEST_PAIRS,
    THRESHOLDS,
    TriedPieces,
    best_of_scored,
    choose_merging,
    held_out_scores,
    learn_rule,
    pieces_to_try,
)
from nnunetv2_conflunet.utilities.files import read_json

# The default only, so that nothing but merging can help.
SETTINGS = TuningSettings(min_confidence=(), grid=Grid((0.1,), (3.0,), (0.0,), (0.0,), (14.0,), (3.0,), (0.0,)))


def two_peaks_a_lesion(toys, n_cases):
    """Cases in which each ball has a second peak, 3 mm beside its center, that takes a third of it."""
    rng = np.random.default_rng(0)
    return [
        toys.scene(heights=rng.uniform(0.6, 0.8, 4), spurious=0.5, aside_mm=int(rng.choice([-3, 3])))
        for _ in range(n_cases)
    ]


def test_pieces_of_one_lesion_are_merged_where_the_model_has_shown_them(tmp_path, toys, references):
    made = two_peaks_a_lesion(toys, 8)
    model = toys.write_model(tmp_path, made)
    record = determine_postprocessing(model, ["0", "1"], references, SETTINGS, num_processes=1)
    merging = record["merging"]
    assert merging["decision"] == "merging"
    # Without merging every ball is in two pieces, and with it every one of a case held out is right.
    assert merging["without"]["F1"] < 0.8 and (merging["best"]["F1"], merging["best"]["PQ"]) == (1, 1)
    assert merging["tried"]["offsets"]["n_pairs_of_one_lesion"] == 4 * 8
    assert merging["best"]["pieces"] == "offsets" and merging["held_out"] == 1
    # Each pair of balls is one instance.
    assert merging["connected_components"]["F1"] == pytest.approx(2 * 2 / (4 + 2))
    assert merging["tried"]["climbing"]["by_threshold"]["0.0"] == merging["connected_components"]
    stored = ModelSettings.from_plans(read_json(model / "plans.json")).instantiation
    assert stored.merge is not None and replace(stored, merge=None) == InstantiationSettings()
    for case in made:
        heads = {"heatmap": case.heatmap, "offsets_mm": np.zeros((3, *toys.shape))}
        found = instantiate(case.segmentation, (1, 1, 1), stored, **heads).instances
        pairs = np.unique(np.stack([found.ravel(), case.reference.ravel()]), axis=1)
        assert pairs.shape[1] == 5
    assert "of one lesion" in "\n".join(describe(record)) and "learned, and the choice" in describe(record)[-1]


def test_few_touching_pieces_teach_nothing(tmp_path, toys, references):
    model = toys.write_model(tmp_path, two_peaks_a_lesion(toys, 2))
    record = determine_postprocessing(model, ["0", "1"], references, SETTINGS, num_processes=1)
    assert record["merging"]["decision"] == "too few pairs"
    assert ModelSettings.from_plans(read_json(model / "plans.json")).instantiation.merge is None
    assert "too few to learn" in describe(record)[-1]


def test_pieces_by_climbing_are_stored_where_they_are_better(tmp_path, toys, references):
    # No peak is high enough for the default; by climbing, every ball is in two pieces.
    made = [toys.scene(heights=(0.26, 0.27, 0.28, 0.29), spurious=0.22) for _ in range(8)]
    model = toys.write_model(tmp_path, made, InstantiationSettings(heatmap_threshold=0.4, min_prominence=0.05))
    grid = replace(SETTINGS.grid, heatmap_threshold=(0.4,), min_prominence=(0.05,))
    record = determine_postprocessing(model, ["0", "1"], references, replace(SETTINGS, grid=grid), num_processes=1)
    merging = record["merging"]
    assert (merging["decision"], merging["best"]["pieces"], merging["best"]["PQ"]) == ("merging", "climbing", 1)
    assert merging["tried"]["offsets"] == {"n_pairs": 0, "n_pairs_of_one_lesion": 0, "by_threshold": {}}
    stored = ModelSettings.from_plans(read_json(model / "plans.json")).instantiation
    assert stored.to_dict() == record["chosen"]
    expected = InstantiationSettings(pieces="climbing", heatmap_threshold=0.2, window_mm=3.0, min_prominence=0.0)
    assert replace(stored, merge=None) == expected and asdict(stored.merge) == merging["best"]["rule"]
    assert "best, pieces by climbing merged above 0." in describe(record)[-2]
    heads = {"heatmap": made[0].heatmap, "offsets_mm": np.zeros((3, *toys.shape))}
    assert instantiate(made[0].segmentation, (1, 1, 1), stored, **heads).instances.max() == 4


@pytest.mark.parametrize("merge", [None, MergeRule(0.7, *[0.0] * 7)])
def test_what_the_trainer_merges_stays_where_nothing_can_be_learned(tmp_path, toys, references, merge):
    model = toys.write_model(tmp_path, [toys.scene() for _ in range(2)], InstantiationSettings(merge=merge))
    record = determine_postprocessing(model, ["0", "1"], references, SETTINGS, num_processes=1)
    assert record["merging"]["decision"] == "too few pairs"
    assert ModelSettings.from_plans(read_json(model / "plans.json")).instantiation.merge == merge


def test_where_pieces_are_right_nothing_is_merged(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene() for _ in range(3)])
    record = determine_postprocessing(model, ["0", "1"], references, SETTINGS, num_processes=1)
    assert record["merging"]["tried"]["offsets"]["n_pairs_of_one_lesion"] == 0
    assert record["chosen"]["merge"] is None


def test_merging_can_be_left_out(tmp_path, toys, references):
    model = toys.write_model(tmp_path, two_peaks_a_lesion(toys, 8))
    settings = replace(SETTINGS, with_merging=False)
    record = determine_postprocessing(model, ["0", "1"], references, settings, num_processes=1)
    assert record["merging"] is None and record["chosen"]["merge"] is None


CHOSEN = InstantiationSettings(heatmap_threshold=0.3)
N_CASES = 12
# Positions of the candidates: nothing merged, then by offsets and by climbing at each threshold.
OFFSETS_AT_0, CLIMBING_AT_05 = 1, 1 + len(THRESHOLDS) + THRESHOLDS.index(0.5)
CLIMBING_AT_0 = 1 + len(THRESHOLDS)


def pairs(features, of_one_lesion):
    """A case that is nothing but pairs, and remembers what it was scored at."""
    case = SimpleNamespace(features=features, of_one_lesion=of_one_lesion, asked=[])
    case.score = lambda settings, scoring: case.asked.append(settings) or np.array([0.5, 0.5])
    return case


def tried_pieces(n_of_one=(4, 4)):
    """Pieces of both kinds with 8 pairs a case."""
    rng = np.random.default_rng(0)
    return [
        TriedPieces(settings, [pairs(rng.normal(size=(8, len(FEATURES))), np.arange(8) < n) for _ in range(N_CASES)])
        for settings, n in zip(pieces_to_try(CHOSEN), n_of_one, strict=True)
    ]


def scores_of(**points):
    """(cases, 1 + candidates, metrics): 0.5 where nothing else is named."""
    scores = np.full((N_CASES, 1 + 2 * len(THRESHOLDS), 2), 0.5)
    for name, metrics in points.items():
        scores[:, globals()[name]] = metrics
    return scores


def test_what_is_better_than_nothing_and_not_worse_than_components_is_the_choice():
    found, record = best_of_scored(tried_pieces(), CHOSEN, scores_of(CLIMBING_AT_05=(0.6, 0.5)), "PQ", 0)
    assert found.merge.threshold == 0.5 and replace(found, merge=None) == pieces_to_try(CHOSEN)[1]
    assert (record["decision"], record["difference"]) == ("merging", pytest.approx(0.1))


def test_the_mean_of_held_out_cases_decides_and_not_the_interval():
    scores = scores_of(CLIMBING_AT_05=(0.5, 0.5))
    scores[:, CLIMBING_AT_05, 0] += np.where(np.arange(N_CASES) % 2, 0.3, -0.25)
    found, record = best_of_scored(tried_pieces(), CHOSEN, scores, "PQ", 0)
    assert record["interval_95"][0] < 0 < record["interval_95"][1]
    assert found.pieces == "climbing" and record["decision"] == "merging"


@pytest.mark.parametrize("metric", ["PQ", "F1"])
def test_what_any_metric_calls_worse_than_components_is_left_out(metric):
    better_of_one = (0.9, 0.4) if metric == "PQ" else (0.4, 0.9)
    found, record = best_of_scored(tried_pieces(), CHOSEN, scores_of(CLIMBING_AT_05=better_of_one), metric, 0)
    assert found == CHOSEN and record["decision"] == "no merging is best"
    assert record["best"] == {"PQ": 0.5, "F1": 0.5, "pieces": "offsets", "rule": None}


def test_where_all_else_is_worse_than_components_all_is_merged():
    scores = scores_of(OFFSETS_AT_0=(0.6, 0.6), CLIMBING_AT_0=(0.6, 0.6), CLIMBING_AT_05=(0.7, 0.5))
    found, record = best_of_scored(tried_pieces(), CHOSEN, scores, "PQ", 0)
    assert (found.pieces, found.merge.threshold) == ("offsets", 0)
    assert record["connected_components"] == {"PQ": pytest.approx(0.6), "F1": pytest.approx(0.6)}


def test_of_equally_good_ones_what_changes_least_is_the_choice():
    assert best_of_scored(tried_pieces(), CHOSEN, scores_of(), "PQ", 0)[0] == CHOSEN
    at_03, at_08 = 1 + THRESHOLDS.index(0.3), 1 + THRESHOLDS.index(0.8)
    scores = scores_of()
    scores[:, [at_03, at_08, CLIMBING_AT_05]] = 0.6
    found, _ = best_of_scored(tried_pieces(), CHOSEN, scores, "PQ", 0)
    assert (found.pieces, found.merge.threshold) == ("offsets", 0.8)


def test_no_case_is_scored_with_a_rule_that_it_has_taught():
    by_offsets, by_climbing = pieces = tried_pieces()
    scores = held_out_scores(pieces, CHOSEN, EvaluationSettings())
    assert scores.shape == (N_CASES, 1 + 2 * len(THRESHOLDS), 2)
    for i, case in enumerate(by_climbing.cases):
        assert by_offsets.cases[i].asked[0] == CHOSEN
        others = [other for other in by_climbing.cases if other is not case]
        assert case.asked == [
            replace(by_climbing.settings, merge=learn_rule(others, threshold)) for threshold in THRESHOLDS
        ]


def test_pieces_with_few_pairs_are_not_tried():
    pieces = tried_pieces(n_of_one=(4, 0))
    assert held_out_scores(pieces, CHOSEN, EvaluationSettings()).shape[1] == 1 + len(THRESHOLDS)
    _, record = choose_merging(pieces, CHOSEN, EvaluationSettings(), "PQ", 0)
    assert record["tried"]["climbing"]["by_threshold"] == {} != record["tried"]["offsets"]["by_threshold"]
    found, record = choose_merging(tried_pieces(n_of_one=(0, 8)), CHOSEN, EvaluationSettings(), "PQ", 0)
    assert (found, record["decision"]) == (CHOSEN, "too few pairs")


def test_a_learned_rule_separates_what_can_be_separated():
    rng = np.random.default_rng(0)
    of_one_lesion = np.arange(200) % 2 == 0
    features = rng.normal(0, 1, (200, len(FEATURES)))
    features[:, 0] += 4 * of_one_lesion
    rule = learn_rule([pairs(features[:100], of_one_lesion[:100])], 0.5)
    found = rule.probability(features[100:]) > 0.5
    assert np.mean(found == of_one_lesion[100:]) > 0.9
    assert rule.saddle > 3 * max(abs(getattr(rule, name)) for name in FEATURES[1:])


@pytest.mark.parametrize("n_of_one", [FEWEST_PAIRS - 1, FEWEST_PAIRS])
def test_a_rule_needs_pairs_of_both_kinds(n_of_one):
    of_one_lesion = np.arange(100) < n_of_one
    case = pairs(np.random.default_rng(0).normal(size=(100, len(FEATURES))), of_one_lesion)
    assert (learn_rule([case], 0.5) is None) == (n_of_one < FEWEST_PAIRS)
