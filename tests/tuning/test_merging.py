"""Learning when touching pieces are one lesion, on model folders whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.merging import FEATURES
from nnunetv2_conflunet.tuning import Grid, TuningSettings, determine_postprocessing
from nnunetv2_conflunet.tuning.description import describe
from nnunetv2_conflunet.tuning.merging import FEWEST_PAIRS, TouchingPieces, learn_rule, main_lesions
from nnunetv2_conflunet.utilities.files import read_json

# The default only, so that nothing but merging can help.
SETTINGS = TuningSettings(grid=Grid((0.1,), (3.0,), (0.0,), (0.0,), (14.0,), (3.0,), (0.0,)))


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
    assert merging["n_pairs_of_one_lesion"] == 4 * 8
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


def test_where_pieces_are_right_nothing_is_merged(tmp_path, toys, references):
    model = toys.write_model(tmp_path, [toys.scene() for _ in range(3)])
    record = determine_postprocessing(model, ["0", "1"], references, SETTINGS, num_processes=1)
    assert record["merging"]["n_pairs_of_one_lesion"] == 0
    assert record["chosen"]["merge"] is None


def test_merging_can_be_left_out(tmp_path, toys, references):
    model = toys.write_model(tmp_path, two_peaks_a_lesion(toys, 8))
    settings = replace(SETTINGS, with_merging=False)
    record = determine_postprocessing(model, ["0", "1"], references, settings, num_processes=1)
    assert record["merging"] is None and record["chosen"]["merge"] is None


def test_the_main_lesion_of_a_piece_has_most_of_its_voxels():
    piece = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    reference = np.array([5, 7, 7, 0, 0, 9, 4, 0])
    assert main_lesions(piece, reference).tolist() == [7, 0, 4]
    assert main_lesions(np.array([0, 1]), np.zeros(2, int)).tolist() == [0, 0]
    assert main_lesions(np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_a_learned_rule_separates_what_can_be_separated():
    rng = np.random.default_rng(0)
    of_one_lesion = np.arange(200) % 2 == 0
    features = rng.normal(0, 1, (200, len(FEATURES)))
    features[:, 0] += 4 * of_one_lesion
    rule = learn_rule([TouchingPieces(features[:100], of_one_lesion[:100])], 0.5)
    found = rule.probability(features[100:]) > 0.5
    assert np.mean(found == of_one_lesion[100:]) > 0.9
    assert rule.saddle > 3 * max(abs(getattr(rule, name)) for name in FEATURES[1:])


@pytest.mark.parametrize("n_of_one", [FEWEST_PAIRS - 1, FEWEST_PAIRS])
def test_a_rule_needs_pairs_of_both_kinds(n_of_one):
    of_one_lesion = np.arange(100) < n_of_one
    pairs = TouchingPieces(np.random.default_rng(0).normal(size=(100, len(FEATURES))), of_one_lesion)
    assert (learn_rule([pairs], 0.5) is None) == (n_of_one < FEWEST_PAIRS)
