"""What a model keeps in its plans, by this version and by earlier ones."""

import json
import multiprocessing as mp
import os
import signal
import time

import pytest

from nnunetv2_conflunet.inference import model_settings
from nnunetv2_conflunet.inference.model_settings import ModelSettings, plans_lock
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError

OWN = InstantiationSettings(heatmap_threshold=0.2)
CHOICE = InstantiationSettings(heatmap_threshold=0.45, window_mm=5.0)
TRAINED = ModelSettings.of_trainer(OWN, alpha=5.0)
TUNED = TRAINED.tuned_to(CHOICE)


def of_plans(content):
    """As they come from a file."""
    return ModelSettings.from_plans(json.loads(json.dumps({"conflunet": content})))


def of_an_earlier_version(settings, *lacking):
    """Without the settings that it did not have."""
    content = json.loads(json.dumps(settings.stored))
    for key in {"instantiation", "instantiation_before_tuning"} & content.keys():
        content[key] = {name: value for name, value in content[key].items() if name not in lacking}
    return of_plans(content)


def test_plans_of_another_trainer_hold_nothing_and_mean_the_defaults(tmp_path):
    for found in (ModelSettings.from_plans({"plans_name": "nnUNetPlans"}), ModelSettings.from_model(tmp_path / "none")):
        assert found == ModelSettings() and not found.is_tuned
        assert found.instantiation == found.untuned == InstantiationSettings()


def test_a_trainers_settings_are_those_of_prediction_until_they_are_tuned():
    found = of_plans(TRAINED.stored)
    assert found == TRAINED and found.stored["alpha"] == 5.0
    assert (found.instantiation, found.untuned, found.is_tuned) == (OWN, OWN, False)
    tuned = of_plans(TUNED.stored)
    assert tuned == TUNED and tuned.stored["alpha"] == 5.0
    assert (tuned.instantiation, tuned.untuned, tuned.is_tuned) == (CHOICE, OWN, True)


def test_tuning_again_starts_from_the_trainers_settings_and_may_return_to_them():
    other = InstantiationSettings(window_mm=7.0)
    assert (TUNED.tuned_to(other).instantiation, TUNED.tuned_to(other).untuned) == (other, OWN)
    assert TUNED.tuned_to(OWN) == TRAINED
    assert TUNED.instantiation == CHOICE


def test_other_entries_of_the_plans_stay():
    plans = {"plans_name": "nnUNetPlans", "conflunet": TRAINED.stored}
    TUNED.put_into(plans)
    assert plans == {"plans_name": "nnUNetPlans", "conflunet": TUNED.stored}


def test_a_trainer_keeps_a_choice_that_was_tuned_from_its_settings():
    again = ModelSettings.of_trainer(OWN, alpha=7.0)
    assert again.keeping_tuning_of(ModelSettings()) == again
    assert again.keeping_tuning_of(TRAINED) == again
    kept = again.keeping_tuning_of(TUNED)
    assert (kept.instantiation, kept.untuned, kept.stored["alpha"]) == (CHOICE, OWN, 7.0)
    assert kept.differences(TUNED) == []


def test_a_trainer_with_other_settings_leaves_the_choice_out():
    other = ModelSettings.of_trainer(InstantiationSettings(window_mm=5.0))
    assert other.keeping_tuning_of(TUNED) == other
    assert other.differences(TUNED) == ["heatmap_threshold 0.1, not 0.45"]
    assert other.differences(ModelSettings()) == ["window_mm 5.0, not 3.0"]


@pytest.mark.parametrize(
    "lacking", [("min_consistency",), ("pieces",), ("h_maxima_mm",), ("min_area_mm2", "merge", "min_prominence")]
)
def test_what_an_earlier_version_stored_means_the_same(lacking):
    found = of_an_earlier_version(TUNED, *lacking)
    assert found != TUNED
    assert (found.instantiation, found.untuned) == (CHOICE, OWN)
    assert found.tuned_to(OWN) == TRAINED
    assert TRAINED.keeping_tuning_of(found) == TUNED
    assert TUNED.differences(found) == []


def test_settings_that_are_not_possible_are_named():
    with pytest.raises(InputError, match=r"plans\.json, 'conflunet': Unknown instantiation settings sigma; known"):
        assert of_plans({"instantiation": {"sigma": 2}}).instantiation
    with pytest.raises(InputError, match="window_mm is -1; it must be a positive number"):
        assert of_plans({"instantiation": {"window_mm": -1}}).untuned


@pytest.mark.parametrize("plans", [{"conflunet": None}, {"conflunet": [1]}, []])
def test_plans_of_another_form_are_named(plans):
    with pytest.raises(InputError, match=r"plans\.json cannot be used: it, or its entry 'conflunet', is no dictionary"):
        ModelSettings.from_plans(plans)


def test_plans_that_stay_half_written_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(model_settings, "READING_PAUSE_S", 0)
    (tmp_path / "plans.json").write_text('{"conflunet": {')
    with pytest.raises(InputError, match=r"plans\.json is not valid JSON"):
        ModelSettings.from_model(tmp_path / "plans.json")


def test_plans_that_become_whole_meanwhile_are_read(tmp_path, monkeypatch):
    (tmp_path / "plans.json").write_text('{"conflunet": {')
    whole = '{"conflunet": {"alpha": 1}}'
    monkeypatch.setattr(model_settings.time, "sleep", lambda _: (tmp_path / "plans.json").write_text(whole))
    assert ModelSettings.from_model(tmp_path / "plans.json").stored == {"alpha": 1}


def _training(folder, sent):
    """A training that starts a worker of its loader while it holds the lock."""
    with plans_lock(folder):
        worker = mp.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        sent.send(worker.pid)
        time.sleep(60)


@pytest.mark.skipif("fork" not in mp.get_all_start_methods(), reason="needs processes that fork")
def test_the_worker_of_a_killed_training_does_not_keep_the_lock(tmp_path):
    received, sent = mp.Pipe(duplex=False)
    training = mp.get_context("fork").Process(target=_training, args=(tmp_path, sent))
    training.start()
    worker = received.recv()
    try:
        training.kill()
        training.join()
        with plans_lock(tmp_path).acquire(timeout=10):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
