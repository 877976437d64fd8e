import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from support import dataset_json, preprocessed_dataset, set_nnunet_environment, small_plans
from torch.nn.functional import softmax

from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNetISBI2024, nnUNetTrainerConfLUNetISBI2024Semantic
from nnunetv2_conflunet.trainers.targets import HEATMAP_AND_OFFSETS, HEATMAP_ONLY
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BOTH = (nnUNetTrainerConfLUNetISBI2024, nnUNetTrainerConfLUNetISBI2024Semantic)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a trainer on a small preprocessed dataset."""
    set_nnunet_environment(monkeypatch, tmp_path)
    plans = small_plans(n_stages=3)
    content = preprocessed_dataset(tmp_path, plans)

    def trainer(kind):
        return kind({**plans, "continue_training": False}, "3d_fullres", 0, content, CPU)

    return trainer


@pytest.mark.parametrize("kind", BOTH)
def test_nnunet_finds_it_by_name(kind, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(nnunet_ext_path()))
    assert recursive_find_trainer_class_by_name(kind.__name__) is kind


@pytest.mark.parametrize("kind", BOTH)
def test_optimizer_and_schedule_are_the_papers(make, kind):
    trainer = make(kind)
    trainer.initialize()
    optimizer, scheduler = trainer.optimizer, trainer.lr_scheduler
    assert isinstance(optimizer, torch.optim.Adam)
    assert (trainer.num_epochs, optimizer.param_groups[0]["weight_decay"]) == (300, 5e-4)
    rates = {}
    for epoch in range(301):
        rates[epoch] = optimizer.param_groups[0]["lr"]
        scheduler.step(epoch + 1)
    # A quarter, half and all of half a cosine.
    assert rates[0] == pytest.approx(1e-4)
    assert rates[150] == pytest.approx(0.5e-4)
    assert rates[300] == pytest.approx(0, abs=1e-12)


def test_the_semantic_loss_is_focal_and_half_a_dice(make):
    trainer = make(nnUNetTrainerConfLUNetISBI2024Semantic)
    trainer.initialize()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 4, 4, 4, generator=generator)
    labels = torch.randint(0, 2, (2, 1, 4, 4, 4), generator=generator)
    probability = softmax(logits, dim=1)
    true = torch.gather(probability, 1, labels)
    focal = (-((1 - true) ** 2) * torch.log(true)).mean()
    lesion = probability[:, 1]
    overlap = (lesion * labels[:, 0]).sum(dim=(1, 2, 3))
    dice = (2 * overlap + 1e-5) / (lesion.sum(dim=(1, 2, 3)) + labels.sum(dim=(1, 2, 3, 4)) + 1e-5)
    # nnU-Net's Dice loss is -Dice where the paper's is 1 - Dice.
    assert trainer.loss(logits, labels.float()).item() == pytest.approx((focal - 0.5 * dice.mean()).item(), rel=1e-4)


def test_the_heads_have_the_papers_weights(make):
    trainer = make(nnUNetTrainerConfLUNetISBI2024)
    trainer.initialize()
    shape = (1, 1, 4, 4, 4)
    logits, labels, heads = torch.zeros(1, 2, 4, 4, 4), torch.zeros(shape), torch.zeros(1, 4, 4, 4, 4)
    packed = torch.zeros(1, 5, 4, 4, 4)
    packed[:, -1] = HEATMAP_ONLY
    before = trainer.loss.weighted_sum([logits, heads], [labels, packed])
    # One voxel of 64 whose heatmap is wrong by 0.5 and whose offset is wrong by (3, 0, -6) mm.
    packed[0, :, 1, 1, 1] = torch.tensor([0.5, 3.0, 0.0, -6.0, HEATMAP_AND_OFFSETS])
    after = trainer.loss.weighted_sum([logits, heads], [labels, packed])
    # The published code's offset loss is a mean over components.
    expected = 2000 * 0.5**2 / 64 + 0.5 * (3 + 0 + 6) / 3
    assert (after - before).item() == pytest.approx(expected, rel=1e-4)
    trainer.on_train_epoch_start()
    assert trainer.loss.heads_weight == 1


def test_the_channels_of_the_heads_start_as_all_others(make):
    trainer = make(nnUNetTrainerConfLUNetISBI2024)
    trainer.initialize()
    weight = trainer.network.decoder.seg_layers[-1].weight.detach()
    assert weight.shape[0] == 6
    assert (weight.flatten(1).std(dim=1) > 0).all()


@pytest.mark.parametrize("kind", BOTH)
def test_every_parameter_that_is_trained_has_a_gradient(make, kind):
    trainer = make(kind)
    trainer.on_train_start()
    trainer.train_step(next(trainer.dataloader_train))
    trained = {name: p for name, p in trainer.network.named_parameters() if p.requires_grad}
    assert trained and all(p.grad is not None for p in trained.values())
    assert not any(".seg_layers.0." in name for name in trained)


@pytest.mark.parametrize("kind", BOTH)
def test_it_trains_and_validates_without_mirroring(make, kind):
    trainer = make(kind)
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 2, 1
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()
    assert trainer.inference_allowed_mirroring_axes is None
    assert trainer.oversample_foreground_percent == 0.8
    assert isinstance(trainer, nnUNetTrainer)


def test_regions_are_refused_by_both(make):
    for kind in BOTH:
        trainer = make(kind)
        regions = dataset_json({"background": 0, "whole": [1, 2], "core": 2})
        with pytest.raises(InputError, match="region-based labels"):
            kind(dict(trainer.plans_manager.plans), "3d_fullres", 0, regions, CPU)
