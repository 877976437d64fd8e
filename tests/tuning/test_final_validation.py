"""What a model learns in its final validation, on predictions whose answer is known."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from support import dataset_json, preprocessed_dataset, set_nnunet_environment, small_plans

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import DEFAULT_RULE
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.tuning.case_pieces import pieces_of_case, save_pieces
from nnunetv2_conflunet.tuning.final_validation import RECORD_FILE, PiecesOfValidation
from nnunetv2_conflunet.tuning.merging import pieces_to_try
from nnunetv2_conflunet.tuning.scoring import CaseArrays
from nnunetv2_conflunet.utilities.files import read_json, write_json

DEFAULT = InstantiationSettings()


def fold_of(model, fold, settings=DEFAULT):
    """A fold of a model folder with these settings."""
    plans = small_plans()
    ModelSettings.of_trainer(settings, alpha=10.0).put_into(plans)
    if not (model / "plans.json").exists():
        model.mkdir(parents=True, exist_ok=True)
        write_json(plans, model / "plans.json")
    return PiecesOfValidation(PlansManager(plans), "3d_fullres", {}, model / f"fold_{fold}")


def predict(fold, toys, cases, *, two_peaks=True):
    """Keep the pieces of balls that each have a second peak, 3 mm beside the first."""
    rng = np.random.default_rng(len(cases))
    tried = pieces_to_try(fold.chosen)
    for case in cases:
        aside = int(rng.choice([-3, 3]))
        made = toys.scene(heights=rng.uniform(0.6, 0.8, 4), spurious=0.5 * two_peaks, aside_mm=aside)
        heads = {"heatmap": made.heatmap, "offsets_mm": np.zeros((3, *toys.shape))}
        arrays = CaseArrays(made.segmentation > 0, made.reference, (1.0, 1.0, 1.0), heads)
        save_pieces(fold.file(case), tried, pieces_of_case(arrays, tried, EvaluationSettings()))


def stored_in(model):
    return ModelSettings.from_plans(read_json(model / "plans.json"))


def test_a_rule_is_learned_and_stored_beside_the_trainers_settings(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    cases = [f"case{i}" for i in range(8)]
    predict(fold, toys, cases)
    text = "\n".join(fold.learn(cases))
    assert "8 validation cases of folds 0." in text and "learned, and the choice" in text
    stored = stored_in(tmp_path)
    assert stored.instantiation.merge is not None and stored.untuned == DEFAULT and stored.learned_on == ["0"]
    record = read_json(tmp_path / RECORD_FILE)
    assert (record["cases"], record["merging"]["best"]["F1"]) == (cases, 1)
    assert stored.stored["alpha"] == 10.0


def test_each_fold_learns_on_all_that_are_there(tmp_path, toys):
    first, second = fold_of(tmp_path, 0), fold_of(tmp_path, 1)
    predict(first, toys, [f"case{i}" for i in range(4)])
    first.learn([f"case{i}" for i in range(4)])
    predict(second, toys, [f"case{i}" for i in range(4, 8)])
    lines = second.learn([f"case{i}" for i in range(4, 8)])
    assert lines[0] == "8 validation cases of folds 0 1." and stored_in(tmp_path).learned_on == ["0", "1"]
    together = stored_in(tmp_path).instantiation
    # Validated anew, it learns the same anew.
    assert first.learn([f"case{i}" for i in range(4)])[0] == lines[0]
    assert stored_in(tmp_path).instantiation == together


def test_training_cases_teach_nothing(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    predict(fold_of(tmp_path, "all"), toys, ["case0"])
    assert fold.learn(["case1"]) == ["No case has pieces to learn from."]
    assert not (tmp_path / RECORD_FILE).exists() and not stored_in(tmp_path).is_tuned


def test_a_copy_of_a_fold_teaches_nothing(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    predict(fold, toys, ["case0"])
    predict(fold_of(tmp_path, "1_before"), toys, ["case1"])
    assert fold.learn(["case0"])[0] == "1 validation cases of folds 0."


def test_what_cases_have_taught_does_not_make_their_instances_where_nothing_can_be_learned(tmp_path, monkeypatch):
    set_nnunet_environment(monkeypatch, tmp_path)
    plans = PlansManager(small_plans())
    trained = ModelSettings.of_trainer(DEFAULT)
    trained.learned(replace(DEFAULT, merge=DEFAULT_RULE), ["0"]).put_into(plans.plans)
    said = []
    trainer = SimpleNamespace(
        plans_manager=plans, configuration_name="3d_fullres", dataset_json=dataset_json(), fold=0,
        output_folder=str(tmp_path / "fold_0"), print_to_log_file=said.append,
    )  # fmt: skip
    # There are no instance maps.
    assert PiecesOfValidation.of(trainer) is None and len(said) == 1
    assert ModelSettings.from_plans(plans.plans).instantiation == DEFAULT


def test_pieces_of_an_earlier_split_go(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    predict(fold, toys, ["case0", "case1"])
    fold.learn(["case1"])
    assert [file.name for file in fold.file("").parent.iterdir()] == ["case1.npz"]


def test_a_case_that_another_split_put_into_another_fold_counts_once(tmp_path, toys):
    first, second = fold_of(tmp_path, 0), fold_of(tmp_path, 1)
    predict(first, toys, ["case0", "case1"])
    predict(second, toys, ["case1", "case2"])
    os.utime(first.file("case1"), (1, 1))
    assert second.learn(["case1", "case2"])[0] == "3 validation cases of folds 0 1."
    predict(first, toys, ["case0", "case1", "case2"])
    assert first.learn(["case0", "case1", "case2"])[0] == "3 validation cases of folds 0."


def test_pieces_of_other_settings_are_left_out_and_said(tmp_path, toys):
    fold, other = fold_of(tmp_path, 0), fold_of(tmp_path, 1, replace(DEFAULT, window_mm=7.0))
    predict(other, toys, ["case8"])
    predict(fold, toys, ["case0"])
    lines = fold.learn(["case0"])
    assert lines[0] == "1 validation cases of folds 0."
    assert f"{other.file('case8')} holds pieces of other settings; validate its fold again." in lines


def test_files_that_another_fold_is_writing_are_passed_over(tmp_path, toys):
    fold, other = fold_of(tmp_path, 0), fold_of(tmp_path, 1)
    predict(fold, toys, ["case0"])
    predict(other, toys, ["case1"])
    other.file("case1").write_bytes(other.file("case1").read_bytes()[:500])
    (other.file("").parent / ".case2.npz.1-ab.tmp.npz").write_bytes(b"half")
    lines = fold.learn(["case0"])
    assert lines[0] == "1 validation cases of folds 0." and "case1.npz cannot be read" in "".join(lines)


def test_a_file_that_another_fold_has_just_removed_is_passed_over(tmp_path, toys):
    fold, other = fold_of(tmp_path, 0), fold_of(tmp_path, 1)
    predict(fold, toys, ["case0"])
    # It is listed, and gone when it is looked at.
    other.file("").parent.mkdir(parents=True)
    other.file("case1").symlink_to(tmp_path / "gone.npz")
    lines = fold.learn(["case0"])
    assert lines[0] == "1 validation cases of folds 0." and "case1.npz cannot be read" in "".join(lines)


def test_a_model_of_other_settings_keeps_them(tmp_path, toys):
    fold_of(tmp_path, 0, replace(DEFAULT, window_mm=7.0))
    fold = fold_of(tmp_path, 0)
    cases = [f"case{i}" for i in range(8)]
    predict(fold, toys, cases)
    assert "was written by a trainer with other settings, which stay" in fold.learn(cases)[-1]
    assert stored_in(tmp_path).instantiation == replace(DEFAULT, window_mm=7.0)


def test_fewer_folds_do_not_replace_more(tmp_path, toys):
    first, second = fold_of(tmp_path, 0), fold_of(tmp_path, 1)
    cases = [f"case{i}" for i in range(8)]
    predict(first, toys, cases[:4])
    predict(second, toys, cases[4:])
    first.learn(cases[:4])
    before = (tmp_path / "plans.json").read_text()
    for case in cases[4:]:
        second.file(case).unlink()
    assert first.learn(cases[:4])[-1] == "The rule learned on more folds stays; validate fold 1 again to learn anew."
    assert (tmp_path / "plans.json").read_text() == before


def test_what_cannot_be_learned_does_not_end_the_validation(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    cases = [f"case{i}" for i in range(8)]
    predict(fold, toys, cases)
    (tmp_path / "plans.json").unlink()
    assert fold.learn(cases)[0].startswith("Nothing was learned (FileNotFoundError")


def test_few_pairs_leave_the_trainers_settings(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    predict(fold, toys, ["case0"], two_peaks=False)
    assert "too few to learn" in fold.learn(["case0"])[-1]
    assert stored_in(tmp_path).instantiation == DEFAULT and not stored_in(tmp_path).is_tuned


def test_what_a_user_has_tuned_stays(tmp_path, toys):
    fold = fold_of(tmp_path, 0)
    plans = read_json(tmp_path / "plans.json")
    tuned = replace(DEFAULT, heatmap_threshold=0.6)
    ModelSettings.from_plans(plans).tuned_to(tuned).put_into(plans)
    write_json(plans, tmp_path / "plans.json")
    cases = [f"case{i}" for i in range(8)]
    predict(fold, toys, cases)
    assert "determine_postprocessing chose stay" in fold.learn(cases)[-1]
    assert stored_in(tmp_path).instantiation == tuned and not (tmp_path / RECORD_FILE).exists()


@pytest.mark.parametrize("dim, transpose", [(3, None), (3, [2, 0, 1]), (2, None)])
def test_pieces_are_made_on_the_networks_grid(tmp_path, monkeypatch, dim, transpose):
    set_nnunet_environment(monkeypatch, tmp_path)
    plans = small_plans(dim=dim, transpose_forward=transpose)
    labels = {"background": 0, "one": 1, "other": 2, "ignore": 3}
    preprocessed_dataset(tmp_path, plans, labels=labels)
    manager, (configuration,) = PlansManager(plans), plans["configurations"]
    ModelSettings.of_trainer(DEFAULT).put_into(manager.plans)
    dataset_json = read_json(tmp_path / "preprocessed" / "Dataset001_Small" / "dataset.json")
    made = PiecesOfValidation(manager, configuration, dataset_json, tmp_path / "fold_0")
    made.references.prepare(1)
    _, reference_labels, instances = made.references.load("case0")
    assert len(np.unique(instances)) == 3
    np.testing.assert_array_equal(reference_labels > 0, instances > 0)
    reference_labels[:, :5] = 3
    monkeypatch.setattr(PreprocessedInstances, "load", lambda self, case: (None, reference_labels, instances))
    # Lesions everywhere, also where nobody labeled.
    output = np.random.default_rng(0).normal(size=(3 + 1 + dim, *instances.shape)).astype(np.float32)
    output[2] = output[0] + 1
    case = made.case_arrays("case0", output)
    np.testing.assert_array_equal(case.foreground, reference_labels != 3)
    np.testing.assert_array_equal(case.reference, instances)
    np.testing.assert_array_equal(case.heads["offsets_mm"], output[4:])
    assert case.spacing_mm == (1.0, 1.0, 1.0)
    pieces = pieces_of_case(case, pieces_to_try(DEFAULT), EvaluationSettings())
    assert [len(one.spacing_mm) for one in pieces] == [dim] * 2


def test_unknown_instances_are_known_as_such_on_the_networks_grid(tmp_path, monkeypatch):
    set_nnunet_environment(monkeypatch, tmp_path)
    plans = small_plans()
    preprocessed_dataset(tmp_path, plans)
    manager = PlansManager(plans)
    ModelSettings.of_trainer(replace(DEFAULT, min_volume_mm3=0, min_extent_mm=0)).put_into(manager.plans)
    declared = read_json(tmp_path / "raw" / "Dataset001_Small" / "dataset.json") | {"instances": {"unknown": 2}}
    write_json(declared, tmp_path / "raw" / "Dataset001_Small" / "dataset.json")
    made = PiecesOfValidation(manager, "3d_fullres", dataset_json(), tmp_path / "fold_0")
    made.references.prepare(1)
    _, _, instances = made.references.load("case0")
    output = np.zeros((2 + 1 + 3, *instances.shape), np.float32)
    output[1] = np.where(instances > 0, 1, -1)
    # Centers of both balls, which a plane parts without offsets.
    for i in np.unique(instances[instances > 0]):
        output[2][tuple(np.rint(np.argwhere(instances == i).mean(axis=0)).astype(int))] = 0.9
    pieces, _ = pieces_of_case(made.case_arrays("case0", output), pieces_to_try(made.chosen), made.scoring)
    assert len(pieces.n_voxels) == 2 and len(pieces.lesion_voxels) == 1
    assert pieces.touching.tolist() == [[0, 1]] and len(pieces.of_one_lesion) == 0
    assert sorted((pieces.unknown_voxels > 0).tolist()) == [False, True]
    # The piece on the unknown ball is left out, so that the other one is all there is.
    assert pieces.score(made.chosen, made.scoring)[1] == 1
