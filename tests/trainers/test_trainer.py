import os
import pickle
import shutil
from contextlib import suppress
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path

import blosc2
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from nnunetv2.run.run_training import find_free_network_port
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from support import (
    balls,
    dataset_json,
    preprocessed_dataset,
    set_nnunet_environment,
    small_architecture,
    small_plans,
)
from torch import distributed as dist
from torch import multiprocessing as mp

import nnunetv2_conflunet.trainers as trainers
from nnunetv2_conflunet.inference import model_settings
from nnunetv2_conflunet.inference.model_settings import ModelSettings, plans_lock
from nnunetv2_conflunet.networks import heads_of, unwrapped
from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate_center_offset
from nnunetv2_conflunet.postprocessing.encoding import center_offset_targets
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.pasting import PastingSettings
from nnunetv2_conflunet.trainers.targets import FIRST_ROW, coded_targets
from nnunetv2_conflunet.trainers.warm_up import BeginsWithLessMomentum
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json, write_json

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
SPLITS = "Dataset001_Small/splits_final.json"


class nnUNetTrainerTiny(nnUNetTrainerConfLUNet):
    epochs = 2

    def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 2
        self.num_val_iterations_per_epoch = 2
        self.save_every = 1

    def on_train_epoch_end(self, train_outputs):
        self.steps = train_outputs
        super().on_train_epoch_end(train_outputs)


class nnUNetTrainerTinyWithoutDeepSupervision(nnUNetTrainerTiny):
    def __init__(self, plans, configuration, fold, dataset_json, device=CPU):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False


class Threads:
    """In place of the processes that export nnU-Net's predictions, each of which imports torch anew."""

    Pool = ThreadPool

    @classmethod
    def get_context(cls, method):
        return cls


@pytest.fixture
def base(tmp_path, monkeypatch):
    set_nnunet_environment(monkeypatch, tmp_path)
    monkeypatch.setattr(stock_training, "multiprocessing", Threads)
    return tmp_path


def make(base, plans, trainer_class=nnUNetTrainerTiny, fold=0, device=CPU, **dataset):
    """A trainer on a small preprocessed dataset."""
    (configuration,) = plans["configurations"]
    if not (base / "raw").exists():
        preprocessed_dataset(base, plans, **dataset)
    content = read_json(base / "preprocessed" / plans["dataset_name"] / "dataset.json")
    return trainer_class({**plans, "continue_training": False}, configuration, fold, content, device)


def resenc_plans():
    plans = small_plans(n_stages=3)
    plans["configurations"]["3d_fullres"]["architecture"] = small_architecture(3, 3, residual=True)
    return plans


@pytest.mark.parametrize(
    "plans, trainer_class, dataset",
    [
        (small_plans(n_stages=3), nnUNetTrainerTiny, {}),
        (small_plans(n_stages=3, patch_size=(4, 16, 16), spacing_mm=(3.0, 1.0, 1.0)), nnUNetTrainerTiny, {}),
        (small_plans(n_stages=3, transpose_forward=[2, 0, 1]), nnUNetTrainerTiny, {}),
        (small_plans(n_stages=3), nnUNetTrainerTinyWithoutDeepSupervision, {}),
        (resenc_plans(), nnUNetTrainerTiny, {}),
        (small_plans(dim=2, n_stages=3), nnUNetTrainerTiny, {}),
        (small_plans(n_stages=3), nnUNetTrainerTiny, {"labels": {"background": 0, "a": 1, "b": 2}}),
        (small_plans(n_stages=3), nnUNetTrainerTiny, {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}),
        (small_plans(n_stages=3), nnUNetTrainerTiny, {"labels": REGIONS}),
        (small_plans(n_stages=3), nnUNetTrainerTinyWithoutDeepSupervision, {"labels": {**REGIONS, "ignore": 3}}),
    ],
    ids=[
        *("3d", "anisotropic", "transposed", "no_deep_supervision", "resenc", "2d", "two_labels", "ignore_label"),
        *("regions", "regions_and_ignore_label"),
    ],
)
def test_every_kind_of_plans_trains_validates_and_writes_instances(base, plans, trainer_class, dataset, device):
    trainer = make(base, plans, trainer_class, device=device, **dataset)
    # The heads count from the first epoch on, whether or not the mask has begun.
    trainer.warm_up = 0
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    for phase in ("train", "val"):
        for part in ("seg", "center", "offsets"):
            values = log[f"{phase}_losses_{part}"]
            # Thin patches cut every lesion, so that no voxel has an offset to learn.
            assert len(values) == 2 and (part == "offsets" or np.isfinite(values).all())
    # In the loss a part that is not measured is 0; in the log it does not count.
    for step in trainer.steps:
        heads = trainer.alpha * step["center"] + trainer.beta * step["offsets"]
        assert step["loss"] == pytest.approx(step["seg"] + heads, abs=1e-4)
    assert log["train_losses"][-1] == pytest.approx(np.mean([step["loss"] for step in trainer.steps]))
    offsets = [step["offsets"] for step in trainer.steps if step["measured"][-1]]
    assert log["train_losses_offsets"][-1] == pytest.approx(np.mean(offsets) if offsets else np.nan, nan_ok=True)
    assert 0 <= log["mean_fg_dice"][-1] <= 1 or np.isnan(log["mean_fg_dice"][-1])
    trainer.perform_actual_validation()
    output = (
        base / "results" / "Dataset001_Small" / f"{trainer_class.__name__}__nnUNetPlans__{trainer.configuration_name}"
    )
    validation = output / "fold_0" / "validation"
    assert (validation / "case0.nii.gz").is_file()
    assert (validation / "instances" / "case0.nii.gz").is_file()
    assert (validation / "instances" / "case0.csv").is_file()
    assert (validation / "summary.json").is_file()
    assert (validation / "pieces" / "case0.npz").is_file()
    assert (output / "fold_0" / "progress_loss_parts.png").is_file()
    assert read_json(output / "plans.json")["conflunet"]["instantiation"]["method"] == "center_offset"
    text = next((output / "fold_0").glob("training_log*.txt")).read_text()
    assert "Merging: 1 validation cases of folds 0." in text
    assert "train_loss parts: seg" in text and "val_loss parts: seg" in text


def test_fold_all_and_a_configuration_that_inherits(base):
    plans = small_plans(n_stages=3)
    preprocessed_dataset(base, plans)
    plans["configurations"] = {
        "3d_fullres": plans["configurations"]["3d_fullres"],
        "3d_small": {"inherits_from": "3d_fullres", "patch_size": [12, 16, 16]},
    }
    content = read_json(base / "preprocessed" / "Dataset001_Small" / "dataset.json")
    trainer = nnUNetTrainerTiny({**plans, "continue_training": False}, "3d_small", "all", content, CPU)
    trainer.run_training()
    assert (base / "preprocessed" / "Dataset001_Small" / "nnUNetPlans_3d_instances").is_dir()
    assert (base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_small" / "fold_all").is_dir()


def test_a_low_resolution_stage_hands_its_semantic_part_to_the_next(base):
    plans = small_plans(n_stages=3)
    preprocessed_dataset(base, plans)
    plans["configurations"]["3d_fullres"]["next_stage"] = "3d_cascade_fullres"
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    content = read_json(base / "preprocessed" / "Dataset001_Small" / "dataset.json")
    trainer = nnUNetTrainerTiny({**plans, "continue_training": False}, "3d_fullres", 0, content, CPU)
    trainer.run_training()
    trainer.perform_actual_validation()
    folder = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres"
    assert (folder / "predicted_next_stage" / "3d_cascade_fullres" / "case0.b2nd").is_file()


def test_continue_takes_up_where_it_stopped(base, device):
    class Stopped(nnUNetTrainerTiny):
        def on_epoch_end(self):
            super().on_epoch_end()
            raise KeyboardInterrupt

    plans = small_plans(n_stages=3)
    first = make(base, plans, Stopped, device=device)
    with pytest.raises(KeyboardInterrupt):
        first.run_training()
    second = make(base, plans, device=device)
    second.load_checkpoint(os.path.join(first.output_folder, "checkpoint_latest.pth"))
    assert second.current_epoch == 1
    assert second.optimizer.param_groups[0]["momentum"] == 0.9
    second.run_training()
    assert second.optimizer.param_groups[0]["momentum"] == 0.99
    assert len(second.logger.get_value("train_losses_center", step=None)) == 2


def test_validation_needs_no_instance_maps(base, device):
    plans = small_plans(n_stages=3)
    trainer = make(base, plans, device=device)
    trainer.run_training()
    again = make(base, plans, device=device)
    again.load_checkpoint(os.path.join(trainer.output_folder, "checkpoint_final.pth"))
    for folder in ("raw/Dataset001_Small/instancesTr", "preprocessed/Dataset001_Small/nnUNetPlans_3d_instances"):
        (base / folder).rename(base / "elsewhere" if "raw" in folder else base / "elsewhere2")
    again.perform_actual_validation()
    assert os.path.isfile(os.path.join(again.output_folder, "validation", "instances", "case0.nii.gz"))
    assert "cannot learn when to merge touching pieces." in Path(again.log_file).read_text()


def test_a_case_that_cannot_be_exported_does_not_end_the_validation(base):
    trainer = make(base, small_plans(n_stages=3))
    write_json([{"train": ["case2", "case3"], "val": ["case0", "case1"]}], base / "preprocessed" / SPLITS)
    trainer.initialize()
    file = os.path.join(trainer.preprocessed_dataset_folder, "case0.b2nd")
    blosc2.asarray(np.full_like(blosc2.open(file)[:], np.nan), urlpath=file, mode="w")
    with pytest.raises(InputError, match=r"1 of 2 cases failed: Case case0 has no instances: .* NaN or infinite"):
        trainer.perform_actual_validation()
    validation = Path(trainer.output_folder) / "validation"
    assert sorted(file.name for file in (validation / "instances").iterdir()) == ["case1.csv", "case1.nii.gz"]
    assert len(read_json(validation / "summary.json")["metric_per_case"]) == 2
    assert [file.name for file in (validation / "pieces").iterdir()] == ["case1.npz"]
    assert "Merging:" in Path(trainer.log_file).read_text()


def test_a_stock_checkpoint_gives_its_weights_but_cannot_be_continued(base, device):
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    plans = small_plans(n_stages=3)
    stock = make(base, plans, nnUNetTrainer, device=device)
    stock.initialize()
    checkpoint = os.path.join(stock.output_folder, "checkpoint_final.pth")
    stock.save_checkpoint(checkpoint)
    trainer = make(base, plans, device=device)
    trainer.initialize()
    load_pretrained_weights(trainer.network, checkpoint)
    ours, theirs = trainer.network.state_dict(), stock.network.state_dict()
    assert list(ours) == list(theirs)
    trunk = [key for key in theirs if ".seg_layers." not in key]
    assert trunk and all(torch.equal(ours[key], theirs[key]) for key in trunk)
    with pytest.raises(
        InputError, match=r"checkpoint_final\.pth cannot be continued.*seg_layers.* -pretrained_weights"
    ):
        make(base, plans, device=device).load_checkpoint(checkpoint)


def test_no_instances_end_training_before_it_begins(base):
    plans = small_plans(n_stages=3)
    preprocessed_dataset(base, plans)
    (base / "raw" / "Dataset001_Small" / "instancesTr").rename(base / "elsewhere")
    trainer = make(base, plans)
    with pytest.raises(InputError, match="--instances_from_labels"):
        trainer.run_training()


def refused(plans, **changes):
    configuration = next(iter(plans["configurations"]))
    plans["configurations"][configuration].update(changes)
    with pytest.raises(InputError) as error:
        nnUNetTrainerConfLUNet(plans, configuration, 0, dataset_json(), CPU)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_refusals_are_one_sentence_and_write_nothing(base):
    assert "cascade" in refused(small_plans(), previous_stage="3d_lowres")
    plans = small_plans(dim=2)
    plans["original_median_shape_after_transp"] = [32, 32, 32]
    assert "volumes (32 slices)" in refused(plans)
    assert not (base / "results").exists()


def test_settings_change_in_one_line(base):
    class nnUNetTrainerMine(nnUNetTrainerTiny):
        alpha, beta, sigma_mm, early_momentum = 7.0, 0.7, 1.5, 0.5

    trainer = make(base, small_plans(n_stages=3), nnUNetTrainerMine)
    trainer.initialize()
    trainer.on_train_epoch_start()
    assert (trainer.loss.alpha, trainer.loss.beta) == (7.0, 0.7)
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.5
    assert trainer.get_validation_transforms(None).transforms[-1].sigma_mm == 1.5
    assert trainer.plans_manager.plans["conflunet"]["sigma_mm"] == 1.5


def test_the_mask_is_learned_before_the_heads_and_with_less_momentum(base):
    trainer = make(base, small_plans(n_stages=3))
    trainer.initialize()
    trainer.num_epochs = 20
    log = trainer.logger.local_logger.my_fantastic_logging
    found = {}
    # The mask is learned in epoch 2; after it the heads come in over a fifth of the epochs.
    for epoch, dice in enumerate([0.0, 0.05, 0.3, 0.0, 0.6, 0.6, 0.6, 0.6]):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        log["mean_fg_dice"].append(dice)
        found[epoch] = (trainer.loss.heads_weight, trainer.optimizer.param_groups[0]["momentum"])
    assert found == {
        0: (0, 0.9), 1: (0, 0.9), 2: (0, 0.9), 3: (0.25, 0.99), 4: (0.5, 0.99), 5: (0.75, 0.99), 6: (1, 0.99),
        7: (1, 0.99),
    }  # fmt: skip


def test_nnunets_own_trainer_begins_with_less_momentum_too(base):
    trainer = make(base, small_plans(n_stages=3), BeginsWithLessMomentum)
    trainer.initialize()
    trainer.on_train_epoch_start()
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.9


def test_variants_are_what_their_names_say(base):
    others = {
        "nnUNetTrainerConfLUNetISBI2024", "nnUNetTrainerConfLUNetISBI2024Semantic", "nnUNetTrainerConfLUNetPasting"
    }  # fmt: skip
    assert others <= set(trainers.__all__)
    assert trainers.nnUNetTrainerConfLUNetPasting.pasting == PastingSettings()
    assert trainers.nnUNetTrainerConfLUNet.pasting is None
    for name in set(trainers.__all__) - others:
        words = name.removeprefix("nnUNetTrainerConfLUNet").strip("_")
        epochs = int(words.rstrip("epochs")) if words else 1000
        assert getattr(trainers, name).epochs == epochs
    assert make(base, small_plans(), trainers.nnUNetTrainerConfLUNet_5epochs).num_epochs == 5


def test_the_heads_begin_at_zero_and_the_semantic_part_as_in_nnunet(base, device):
    plans = small_plans(n_stages=3)
    trainer = make(base, plans, device=device)
    trainer.initialize()
    network = unwrapped(trainer.network)
    assert heads_of(network).n_channels == 6
    network.eval()
    outputs = network(torch.randn(1, 1, 16, 16, 16, device=device))
    assert [o.shape[1] for o in outputs] == [2, 2, 4]
    assert not outputs[-1].any() and outputs[0].any()
    trainer.set_deep_supervision_enabled(False)
    assert network(torch.randn(1, 1, 16, 16, 16, device=device)).shape == (1, 6, 16, 16, 16)


def test_a_compiled_network_hands_its_heads_over_too(base, device):
    trainer = make(base, small_plans(n_stages=3), device=device)
    trainer.initialize()
    trainer.network = torch.compile(trainer.network, backend="eager" if device == CPU else "inductor")
    assert heads_of(trainer.network).n_channels == 6
    assert [o.shape[1] for o in trainer.network(torch.randn(1, 1, 16, 16, 16, device=device))] == [2, 2, 4]
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network(torch.randn(1, 1, 16, 16, 16, device=device)).shape == (1, 6, 16, 16, 16)


def test_a_tuned_instantiation_survives_another_fold(base):
    plans = small_plans(n_stages=3)
    first = make(base, plans)
    first.initialize()
    folder = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres"
    settings = {**first.plans_manager.plans["conflunet"]}
    settings["instantiation_before_tuning"] = settings["instantiation"]
    settings["instantiation"] = {**settings["instantiation"], "heatmap_threshold": 0.6}
    write_json({"conflunet": settings}, folder / "plans.json")
    second = make(base, plans)
    second.initialize()
    assert second.plans_manager.plans["conflunet"]["instantiation"]["heatmap_threshold"] == 0.6


def test_another_instantiation_than_the_models_is_said(base):
    plans = small_plans(n_stages=3)
    make(base, plans).initialize()
    folder = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres"
    settings = InstantiationSettings(min_consistency=1.25).to_dict()
    # A version without prominence wrote it.
    del settings["min_prominence"]
    write_json({"conflunet": {"instantiation": settings}}, folder / "plans.json")
    again = make(base, plans)
    again.initialize()
    log = Path(again.log_file).read_text()
    differing = (
        "heatmap_threshold 0.3, not 0.1; window_mm 5.0, not 3.0; min_prominence 0.05, not 0.0; another merge rule"
    )
    assert f"Instances are made with {differing} as in {folder / 'plans.json'}" in log
    assert "tune again" not in log
    again.on_train_start()
    third = make(base, plans)
    # Trainers that are made within one second share nnU-Net's log file.
    third.log_file = str(base / "third.txt")
    Path(third.log_file).touch()
    third.initialize()
    assert "Instances are made with" not in Path(third.log_file).read_text()


def test_a_tuned_choice_that_does_not_count_any_longer_is_said(base):
    plans = small_plans(n_stages=3)
    make(base, plans).initialize()
    folder = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres"
    before = nnUNetTrainerTiny.instantiation.to_dict() | {"window_mm": 7.0}
    tuned = before | {"heatmap_threshold": 0.6}
    write_json({"conflunet": {"instantiation": tuned, "instantiation_before_tuning": before}}, folder / "plans.json")
    again = make(base, plans)
    again.initialize()
    assert again.plans_manager.plans["conflunet"]["instantiation"] == nnUNetTrainerTiny.instantiation.to_dict()
    log = Path(again.log_file).read_text()
    assert "with heatmap_threshold 0.3, not 0.6; window_mm 5.0, not 7.0 as in" in log and "tune again" in log


@pytest.mark.parametrize(
    "spacing_mm, threshold",
    # Midway between slices of 6 mm and voxels of 1 mm: sqrt(3^2 + 0.5^2 + 0.5^2) mm from the next voxel.
    [((3.0, 1.0, 1.0), 0.3), ((6.0, 1.0, 1.0), np.exp(-9.5 / 8) / 2), ((20.0, 1.0, 1.0), 0.05)],
)
def test_coarse_grids_ask_for_lower_centers(base, spacing_mm, threshold):
    trainer = make(base, small_plans(n_stages=3, spacing_mm=spacing_mm))
    trainer.initialize()
    assert trainer.plans_manager.plans["conflunet"]["instantiation"]["heatmap_threshold"] == pytest.approx(
        threshold, abs=5e-4
    )


def test_nnunet_finds_every_trainer_and_the_users_own(monkeypatch, tmp_path):
    own = tmp_path / "own_trainers"
    own.mkdir()
    (own / "mine.py").write_text(
        "from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet\n"
        "class nnUNetTrainerOfAUser(nnUNetTrainerConfLUNet):\n    alpha = 5\n"
    )
    assert [file.name for file in nnunet_ext_path().iterdir() if file.name != "__pycache__"] == [
        "nnunetv2_conflunet_trainers.py"
    ]
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([str(nnunet_ext_path()), str(own)]))
    for name in ("nnUNetTrainerConfLUNet", "nnUNetTrainerConfLUNet_100epochs"):
        found = recursive_find_trainer_class_by_name(name)
        assert found is getattr(trainers, name)
        assert pickle.loads(pickle.dumps(found)) is found
    found = recursive_find_trainer_class_by_name("nnUNetTrainerOfAUser")
    assert issubclass(found, nnUNetTrainerConfLUNet) and found.alpha == 5


def _ddp_trainer(rank, base, port, **kwargs):
    """The trainer in one process of nnU-Net's own DDP training, on the CPU through gloo."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    # nnU-Net wraps for CUDA devices; on the CPU a network has none.
    wrapper = stock_training.DDP
    stock_training.DDP = lambda network, device_ids: wrapper(network)
    trainer = make(base, small_plans(n_stages=3), **kwargs)
    trainer.device, trainer.grad_scaler, trainer.num_epochs, trainer.warm_up = CPU, None, 1, 0
    return trainer


def _ddp_process(rank, base, port, queue):
    trainer = _ddp_trainer(rank, base, port)
    trainer.run_training()
    weights = torch.cat([p.detach().flatten() for p in trainer.network.parameters()])
    queue.put(
        (rank, trainer.batch_size, weights.double().sum().item(), trainer.logger.get_value("train_losses_center", 0))
    )
    trainer.perform_actual_validation()
    dist.destroy_process_group()


def test_two_processes_train_together(base):
    preprocessed_dataset(base, small_plans(n_stages=3))
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_ddp_process, args=(base, find_free_network_port(), queue), nprocs=2)
    results = sorted(queue.get() for _ in range(2))
    assert [r[1] for r in results] == [1, 1]
    assert results[0][2:] == results[1][2:]
    folder = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres" / "fold_0"
    assert (folder / "validation" / "instances" / "case0.nii.gz").is_file()


def _ddp_start(rank, base, port, waiting, free):
    """Start a training whose second process says when it waits for the first one, and is late to write the plans."""
    trainer = _ddp_trainer(rank, base, port, fold=1)
    trainer.initialize()
    barrier, broadcast = dist.barrier, dist.broadcast_object_list

    def say_and_broadcast(found):
        waiting.set()
        broadcast(found)

    def say_and_be_late():
        waiting.set()
        dist.barrier = barrier
        barrier()
        with suppress(Timeout), plans_lock(trainer.output_folder_base).acquire(timeout=3):
            free.set()

    if rank == 1:
        dist.barrier, dist.broadcast_object_list = say_and_be_late, say_and_broadcast
    trainer.on_train_start()
    dist.destroy_process_group()


def test_what_another_fold_learns_while_two_processes_start_stays(base):
    make(base, small_plans(n_stages=3)).on_train_start()
    model = base / "results" / "Dataset001_Small" / "nnUNetTrainerTiny__nnUNetPlans__3d_fullres"
    context = mp.get_context("spawn")
    waiting, free = context.Event(), context.Event()
    with plans_lock(model):
        processes = mp.spawn(_ddp_start, args=(base, find_free_network_port(), waiting, free), nprocs=2, join=False)
        assert waiting.wait(300)
        learned = learn(model / "plans.json")
    while not processes.join():
        pass
    assert ModelSettings.from_model(model / "plans.json").learned_on == learned.learned_on == ["0"]
    assert not free.is_set(), "the lock was free before the second process had written the plans"


def test_four_touching_lesions_can_be_learned(base, device):
    """Overfit one patch until the heads are right: the instances come back as four."""
    torch.manual_seed(0)
    instances = balls((20, 20, 20), [(6, 6, 6), (6, 6, 12), (6, 12, 6), (12, 8, 9)], 3.4)
    assert np.unique(instances_cc(instances > 0)).size == 2
    plans = small_plans(n_stages=3, patch_size=(20, 20, 20))
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [12, 16, 24]
    trainer = make(base, plans, device=device)
    trainer.initialize()
    heatmap, offsets = center_offset_targets(instances, (1, 1, 1))
    validity = np.where(instances > 0, 2, 1)[None]
    packed = torch.from_numpy(np.concatenate([heatmap[None], offsets, validity])[None]).half()
    label = torch.from_numpy((instances > 0)[None, None].astype(np.int16))
    target = [array.to(device) for array in (label, label[..., ::2, ::2, ::2], packed)]
    image = torch.from_numpy(np.stack([instances % 2 + 1.5 * (instances > 0)]))[None].float()
    image = (image + 0.1 * torch.randn_like(image)).to(device)
    optimizer = torch.optim.Adam(trainer.network.parameters(), 3e-3)
    trainer.loss.alpha, trainer.loss.beta = 200, 0.5
    for _ in range(150):
        optimizer.zero_grad()
        trainer.loss.weighted_sum(trainer.network(image), target).backward()
        optimizer.step()
    trainer.set_deep_supervision_enabled(False)
    output = trainer.network(image)[0].detach().cpu().numpy()
    found = instantiate_center_offset(output[1] > output[0], output[2], output[3:], (1, 1, 1))
    assert found.max() == 4
    for i in range(1, 5):
        overlap = [np.count_nonzero((found == j) & (instances == i)) for j in range(1, 5)]
        union = np.count_nonzero((found == 1 + np.argmax(overlap)) | (instances == i))
        assert max(overlap) / union > 0.7


def test_offsets_beyond_30_mm_are_learned_step_by_step_in_the_trainers_own_precision(base, device):
    """On a GPU that is float16 with a scaled gradient: no part of the loss may leave its range."""
    torch.manual_seed(0)
    trainer = make(base, small_plans(n_stages=3, patch_size=(16, 16, 16), spacing_mm=(8.0, 8.0, 8.0)), device=device)
    trainer.initialize()
    trainer.optimizer = torch.optim.Adam(trainer.network.parameters(), 5e-2)
    instances = np.zeros((16, 16, 16), np.int32)
    instances[3:13, 3:13, 3:13] = 1
    codes, centers = coded_targets(instances, InstanceCenters.of(instances), None, (8.0, 8.0, 8.0), 2.0)
    position_mm = 8.0 * (np.arange(16) - 7.5)[:, None, None] * (instances > 0)
    assert np.abs(position_mm).max() == 36
    label = (instances > 0)[None, None].astype(np.int16)
    target = [torch.from_numpy(array) for array in (label, label[..., ::2, ::2, ::2], codes[None], centers[None])]
    batch = {"data": torch.from_numpy(position_mm[None, None] / 36 + (instances > 0)).float(), "target": target}
    losses = [trainer.train_step(batch) for _ in range(60)]
    assert all(np.isfinite(step[part]) for step in losses for part in ("loss", "seg", "center", "offsets"))
    assert losses[-1]["offsets"] < 0.7 * losses[0]["offsets"]


def instances_cc(mask):
    from scipy.ndimage import label

    return label(mask, np.ones((3, 3, 3)))[0]


@pytest.mark.parametrize(
    "dim, spacing_mm, message",
    [
        (3, (0.001, 0.0003, 0.0003), "3d_fullres: sigma_mm is 2 mm, 6,667 voxels of 0.0003 mm"),
        (2, (0.01, 0.01), "2d: sigma_mm is 2 mm, 200 voxels"),
        (3, (1.0, 0.1, 0.1), "3d_fullres: The image is 16 x 1.6 x 1.6 mm large, and the size filter would remove"),
    ],
)
def test_a_spacing_in_another_unit_is_refused_before_anything_is_written(base, dim, spacing_mm, message):
    text = refused(small_plans(dim=dim, spacing_mm=spacing_mm))
    assert f"Dataset001_Small, {message}" in text and "micrometers" in text
    assert not (base / "results").exists()


def test_lengths_that_suit_a_small_spacing_are_not(base):
    class nnUNetTrainerInMicrometers(nnUNetTrainerTiny):
        sigma_mm = 0.002
        instantiation = InstantiationSettings(window_mm=0.005, min_volume_mm3=0, min_extent_mm=0)

    plans = small_plans(n_stages=3, spacing_mm=(0.001, 0.0005, 0.0005))
    content = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    assert nnUNetTrainerInMicrometers(plans, "3d_fullres", 0, content, CPU)


class nnUNetTrainerTinyPasting(nnUNetTrainerTiny):
    pasting = PastingSettings(probability=1.0, touching=1.0)


def most_lesions(loader, n_batches=6):
    """Greatest number of centers with a voxel in a patch of the loader."""
    patches = [codes for _ in range(n_batches) for codes in next(loader)["target"][-2]]
    return max(len(np.unique(codes[codes >= FIRST_ROW])) for codes in patches)


@pytest.mark.parametrize("kind, pasted", [(nnUNetTrainerTiny, 0), (nnUNetTrainerTinyPasting, 3)])
def test_the_loader_hands_over_one_byte_a_voxel_and_a_center_for_each_lesion_of_a_case(base, kind, pasted):
    trainer = make(base, small_plans(patch_size=(24, 24, 24)), kind, apart=8)
    trainer.on_train_start()
    *_, codes, centers = next(trainer.dataloader_train)["target"]
    # Cases have two lesions.
    assert codes.dtype == torch.uint8 and centers.shape[1:] == (2 + pasted, 3)


def test_each_lesion_has_a_center_where_maps_were_copied_without_their_records(base):
    plans = small_plans(patch_size=(24, 24, 24))
    make(base, plans, apart=8).on_train_start()
    shutil.rmtree(base / "raw" / "Dataset001_Small")
    for record in (base / "preprocessed" / "Dataset001_Small" / "nnUNetPlans_3d_instances").glob("*.json"):
        record.unlink()
    trainer = make(base, plans)
    trainer.on_train_start()
    # Cases have two lesions.
    assert most_lesions(trainer.dataloader_train) == 2


@pytest.mark.parametrize("dim", [2, 3])
def test_lesions_are_pasted_into_training_patches_only(base, capsys, dim):
    trainer = make(base, small_plans(dim=dim, patch_size=(24,) * dim), nnUNetTrainerTinyPasting, apart=8)
    trainer.on_train_start()
    assert "lesions of 3 cases can be pasted" in capsys.readouterr().out
    # Cases have two lesions, so that patches may have as many.
    assert most_lesions(trainer.dataloader_train) <= 2
    trainer.paste_lesions[0].store.most_lesions = 9
    assert most_lesions(trainer.dataloader_train) > 2
    assert most_lesions(trainer.dataloader_val) <= 2


def test_training_goes_on_where_no_lesion_can_be_pasted(base, capsys):
    trainer = make(base, small_plans(), nnUNetTrainerTinyPasting)
    trainer.run_training()
    assert capsys.readouterr().out.count("nothing is pasted") == 1
    assert trainer.paste_lesions == []


def test_the_first_split_is_made_under_a_lock_of_the_dataset(base):
    trainer = make(base, small_plans(), n_cases=5)
    split = base / "preprocessed" / "Dataset001_Small" / "splits_final.json"
    split.unlink()
    stock_split = trainer.do_split

    def do_split():
        if not split.exists():
            lock = FileLock(split.with_name(".splits_final.json.lock"))
            with pytest.raises(Timeout):
                ThreadPool(1).apply(lock.acquire, kwds={"timeout": 0.1})
        return stock_split()

    trainer.do_split = do_split
    trainer.on_train_start()
    assert split.is_file()


def learn(plans_file):
    """Store a rule as the final validation of fold 0 does."""
    plans = read_json(plans_file)
    before = ModelSettings.from_plans(plans)
    learned = before.learned(replace(before.instantiation, heatmap_threshold=0.2), ["0"])
    learned.put_into(plans)
    write_json(plans, plans_file)
    return learned


def test_what_another_fold_learns_while_this_one_starts_stays(base):
    make(base, small_plans()).on_train_start()
    starting = make(base, small_plans(), fold=1)
    starting.initialize()
    plans_file = Path(starting.output_folder_base) / "plans.json"
    learned = learn(plans_file)
    starting.on_train_start()
    assert ModelSettings.from_model(plans_file) == learned


@pytest.mark.parametrize("content", ['{"conflunet": {"instantiation": {"win', "", "\0\0"])
def test_damaged_plans_of_the_model_are_written_anew(base, monkeypatch, content):
    monkeypatch.setattr(model_settings, "READING_PAUSE_S", 0)
    trainer = make(base, small_plans())
    plans_file = Path(trainer.output_folder_base) / "plans.json"
    plans_file.write_text(content)
    trainer.on_train_start()
    assert ModelSettings.from_model(plans_file).instantiation == nnUNetTrainerTiny.instantiation
    log = Path(trainer.log_file).read_text()
    assert f"{plans_file} is damaged: settings in it that were tuned or learned are lost" in log


def test_impossible_settings_of_the_model_end_training(base):
    trainer = make(base, small_plans())
    write_json({"conflunet": [1]}, Path(trainer.output_folder_base) / "plans.json")
    with pytest.raises(InputError, match="'conflunet', is no dictionary"):
        trainer.on_train_start()


@pytest.mark.parametrize("continued", [False, True])
def test_a_new_training_forgets_the_pieces_of_an_earlier_one(base, continued):
    trainer = make(base, small_plans())
    pieces = Path(trainer.output_folder) / "validation" / "pieces" / "case0.npz"
    pieces.parent.mkdir(parents=True)
    pieces.write_bytes(b"earlier")
    trainer.current_epoch = 1 if continued else 0
    trainer.on_train_start()
    assert pieces.is_file() == continued
