"""Trainers that are mixed of ours and nnU-Net's, each trained for one iteration; they make the table in the recipes."""

import inspect
from copy import deepcopy
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss, DC_and_topk_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss, TopKLoss
from nnunetv2.training.lr_scheduler.warmup import Lin_incr_LRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from support import preprocessed_dataset, set_nnunet_environment, small_plans
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim.lr_scheduler import CosineAnnealingLR

from nnunetv2_conflunet.networks import heads_of
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.trainers import (
    nnUNetTrainerConfLUNet,
    nnUNetTrainerConfLUNet_10epochs,
    nnUNetTrainerConfLUNetISBI2024,
    nnUNetTrainerConfLUNetISBI2024Semantic,
)
from nnunetv2_conflunet.trainers.loss import ConfLUNetLoss, FocalLoss
from nnunetv2_conflunet.trainers.mixing import STOCK_EPOCHS, STOCK_VALUES
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RECIPES = Path(__file__).parents[2] / "docs" / "recipes.md"
OURS = (nnUNetTrainerConfLUNet, nnUNetTrainerConfLUNetISBI2024, nnUNetTrainerConfLUNetISBI2024Semantic)


def semantic_loss(trainer):
    loss = trainer.loss.semantic if isinstance(trainer.loss, ConfLUNetLoss) else trainer.loss
    assert isinstance(loss, DeepSupervisionWrapper) == trainer.enable_deep_supervision
    return loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss


def transforms(trainer):
    found = trainer.dataloader_train.data_loader.transforms.transforms
    return [one.transform if isinstance(one, RandomTransform) else one for one in found]


def has(trainer, kind):
    return any(isinstance(transform, kind) for transform in transforms(trainer))


def norms(trainer):
    return {
        kind for part in trainer.network.modules() for kind in (_BatchNorm, _InstanceNorm) if isinstance(part, kind)
    }


def optimizer_and_schedule(trainer):
    return type(trainer.optimizer), type(trainer.lr_scheduler)


def sampling(trainer):
    loader = trainer.dataloader_train.data_loader
    return loader.get_do_oversample.__name__, loader.oversample_foreground_percent


# Each trainer of nnU-Net, what it changes in words, and whether it has in a trainer.
STOCK = {
    "nnUNetTrainerBN": ("batch norm", lambda t: norms(t) == {_BatchNorm}),
    "nnUNetTrainerNoDA": (
        "no augmentation",
        lambda t: (
            all("Spatial" not in type(one).__name__ and "Noise" not in type(one).__name__ for one in transforms(t))
            and not has(t, MirrorTransform)
        ),
    ),
    "nnUNetTrainerDA5": ("strong augmentation", lambda t: has(t, Rot90Transform) and has(t, MirrorTransform)),
    "nnUNetTrainerNoMirroring": (
        "no mirroring",
        lambda t: not has(t, MirrorTransform) and t.inference_allowed_mirroring_axes is None,
    ),
    "nnUNetTrainer_onlyMirror01": (
        "mirroring along two axes",
        lambda t: [tuple(one.allowed_axes) for one in transforms(t) if isinstance(one, MirrorTransform)] == [(0, 1)],
    ),
    "nnUNetTrainerDiceLoss": ("Dice", lambda t: type(semantic_loss(t)) is MemoryEfficientSoftDiceLoss),
    "nnUNetTrainerDiceCELoss_noSmooth": (
        "Dice without smoothing",
        lambda t: type(semantic_loss(t)) is DC_and_CE_loss and semantic_loss(t).dc.smooth == 0,
    ),
    "nnUNetTrainerDiceTopK10Loss": ("Dice and top-k", lambda t: type(semantic_loss(t)) is DC_and_topk_loss),
    "nnUNetTrainerCELoss": ("cross-entropy", lambda t: type(semantic_loss(t)) is RobustCrossEntropyLoss),
    "nnUNetTrainerTopk10Loss": ("top-k", lambda t: type(semantic_loss(t)) is TopKLoss),
    "nnUNetTrainerAdam": ("AdamW", lambda t: type(t.optimizer) is torch.optim.AdamW),
    "nnUNetTrainerAdam1en3": (
        "AdamW, learning rate 0.001",
        lambda t: type(t.optimizer) is torch.optim.AdamW and t.initial_lr == 1e-3,
    ),
    "nnUNetTrainerCosAnneal": (
        "SGD, cosine",
        lambda t: optimizer_and_schedule(t) == (torch.optim.SGD, CosineAnnealingLR),
    ),
    "nnUNetTrainer_warmup": (
        "SGD, warm-up",
        lambda t: optimizer_and_schedule(t) == (torch.optim.SGD, Lin_incr_LRScheduler),
    ),
    "nnUNetTrainer_probabilisticOversampling_010": (
        "a tenth of patches with lesions",
        lambda t: sampling(t) == ("_probabilistic_oversampling", 0.1),
    ),
    "nnUNetTrainerNoDeepSupervision": ("one output", lambda t: not t.enable_deep_supervision),
    "nnUNetTrainer_5epochs": ("5 epochs", lambda t: t.num_epochs == 5),
}


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains a trainer for one iteration on a small preprocessed dataset."""
    base = tmp_path_factory.mktemp("mixing")
    plans = small_plans(n_stages=3)
    with pytest.MonkeyPatch.context() as patch:
        set_nnunet_environment(patch, base)
        # Logs and plots of a training take most of the time, and tell nothing here.
        patch.setattr(nnUNetTrainer, "plot_network_architecture", lambda self: None)
        patch.setattr(nnUNetTrainer, "_save_debug_information", lambda self: None)
        content = preprocessed_dataset(base, plans)

        def one_iteration(kind):
            # nnU-Net's batch norm changes the plans in place.
            own_plans = {**deepcopy(plans), "continue_training": False}
            trainer = kind(own_plans, "3d_fullres", 0, content, CPU)
            trainer.on_train_start()
            trainer.on_train_epoch_start()
            trainer.train_outputs = [trainer.train_step(next(trainer.dataloader_train))]
            with torch.no_grad():
                trainer.on_validation_epoch_start()
                trainer.validation_step(next(trainer.dataloader_val))
            # It looks for every file again, which takes longer than the iteration.
            patch.setattr(PreprocessedInstances, "prepare", lambda self, num_processes: [])
            return trainer

        yield one_iteration


def mixed(*bases):
    return type("X", bases, {})


def outcome(train, *bases):
    """What a mix gives, in a word for the table."""
    stock = next(base for base in bases if base.__name__ in STOCK)
    try:
        trainer = train(mixed(*bases))
    except InputError as error:
        order = ", ".join(base.__name__ for base in bases[::-1])
        assert f"class X({order})" in str(error), error
        assert str(error).count("\n") == 0
        return "refused"
    assert STOCK[stock.__name__][1](trainer), f"{stock.__name__} has no effect in {bases}"
    assert np.isfinite(trainer.train_outputs[0]["loss"])
    if isinstance(trainer, nnUNetTrainerConfLUNet):
        assert heads_of(trainer.network).n_channels == 6
        assert isinstance(trainer.loss, ConfLUNetLoss)
        assert {"loss", "seg", "center", "offsets"} < set(trainer.train_outputs[0])
    return "yes"


def test_every_mix_takes_effect_or_is_refused_with_the_order_that_does(train):
    rows = []
    for name, (effect, _) in STOCK.items():
        stock = recursive_find_trainer_class_by_name(name)
        cells = [outcome(train, *order) for ours in OURS for order in ((ours, stock), (stock, ours))]
        assert all(cell == "yes" for cell in cells[::2]), (name, cells)
        rows.append(f"| `{name}` | {effect} | {' | '.join(cells)} |")
    table = "\n".join(rows)
    assert table in RECIPES.read_text(), f"docs/recipes.md must have these rows:\n{table}"


def test_a_mixed_network_is_built_of_its_class_alone_as_the_predictor_does(train):
    kind = mixed(nnUNetTrainerConfLUNet, recursive_find_trainer_class_by_name("nnUNetTrainerBN"))
    trainer = train(kind)
    # nnU-Net looks at the names of the arguments.
    assert next(iter(inspect.signature(kind.build_network_architecture).parameters)) == "plans_manager"
    network = kind.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 1, 2, False)
    assert any(isinstance(module, _BatchNorm) for module in network.modules())
    assert list(network.state_dict()) == list(trainer.network.state_dict())
    assert heads_of(network).n_channels == 6


def test_several_trainers_mix(train):
    stock = ("nnUNetTrainerBN", "nnUNetTrainerDA5", "nnUNetTrainerDiceTopK10Loss", "nnUNetTrainerAdam1en3")
    for ours in OURS[:2]:
        trainer = train(mixed(ours, *map(recursive_find_trainer_class_by_name, stock)))
        assert all(STOCK[name][1](trainer) for name in stock)


def test_an_own_class_on_top_of_a_mix_is_refused_with_the_bases_of_the_mix(train):
    class Mix(recursive_find_trainer_class_by_name("nnUNetTrainerBN"), nnUNetTrainerConfLUNet):
        pass

    class Own(Mix):
        alpha = 5

    with pytest.raises(InputError, match=r"class Mix\(nnUNetTrainerConfLUNet, nnUNetTrainerBN\)"):
        train(Own)


def test_a_class_between_that_builds_on_ours_may_replace_what_it_likes(train):
    class Own(nnUNetTrainerConfLUNet):
        @staticmethod
        @wraps(nnUNetTrainer.build_network_architecture)
        def build_network_architecture(*args, **kwargs):
            return nnUNetTrainerConfLUNet.build_network_architecture(*args, **kwargs)

    assert heads_of(train(Own).network).n_channels == 6


def test_the_recipe_keeps_what_no_other_trainer_changes(train):
    trainer = train(mixed(nnUNetTrainerConfLUNetISBI2024, recursive_find_trainer_class_by_name("nnUNetTrainerCELoss")))
    assert type(trainer.optimizer) is torch.optim.Adam and trainer.initial_lr == 1e-4
    assert (trainer.num_epochs, trainer.oversample_foreground_percent) == (300, 0.8)
    assert trainer.loss.beta == pytest.approx(0.5 / 3)
    trainer = train(mixed(nnUNetTrainerConfLUNetISBI2024, recursive_find_trainer_class_by_name("nnUNetTrainerAdam")))
    assert isinstance(semantic_loss(trainer).ce, FocalLoss)


def test_two_numbers_of_epochs_are_refused(train):
    five = recursive_find_trainer_class_by_name("nnUNetTrainer_5epochs")
    with pytest.raises(InputError, match="has epochs = 10, but a trainer of nnU-Net mixed into it sets 5"):
        train(mixed(nnUNetTrainerConfLUNet_10epochs, five))
    assert train(mixed(five, nnUNetTrainerConfLUNet_10epochs)).num_epochs == 5


def test_nnunets_own_values_are_as_the_recipe_takes_them(train):
    trainer = train(nnUNetTrainerConfLUNet)
    assert {name: getattr(trainer, name) for name in STOCK_VALUES} == STOCK_VALUES
    assert trainer.num_epochs == STOCK_EPOCHS


@pytest.mark.parametrize("ours", OURS)
def test_a_network_without_output_layers_of_a_u_net_is_refused(train, ours):
    primus = recursive_find_trainer_class_by_name("nnUNet_Primus_S_Trainer")
    with pytest.raises(InputError, match="Primus has no decoder with seg_layers"):
        train(mixed(ours, primus))


def test_a_trainer_that_calls_super_takes_effect_before_ours(train):
    class Short(nnUNetTrainer):
        def _build_loss(self):
            loss = super()._build_loss()
            self.seen = loss
            return loss

    class Long(nnUNetTrainer):
        def _build_loss(self):
            self.seen = super(Long, self)._build_loss()  # noqa: UP008  (the older form)
            return self.seen

    for own in (Short, Long):
        trainer = train(mixed(own, nnUNetTrainerConfLUNet))
        assert isinstance(trainer.seen, ConfLUNetLoss) and trainer.loss is trainer.seen
