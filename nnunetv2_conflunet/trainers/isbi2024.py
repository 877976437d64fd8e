"""The training recipe of the paper (Wynen et al., ISBI 2024), for ConfLUNet and for the U-Net of its baselines.

"Paper" below is the paper; "code" is the code published by its authors
(https://github.com/maxencewynen/ConfLUNet, commit f463fcc of March 2024), which is followed where the paper gives no
value. docs/reproduction.md lists similarities and differences.
"""

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from nnunetv2_conflunet.networks import output_layers
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import PAPER_LIMITS
from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.loss import ConfLUNetLoss, FocalLoss
from nnunetv2_conflunet.trainers.mixing import (
    PAPER_EPOCHS,
    UnlessMixedIn,
    refuse_to_replace,
    set_epochs,
    set_unless_mixed_in,
)
from nnunetv2_conflunet.trainers.variants import PredictsWithoutMirroring
from nnunetv2_conflunet.utilities.errors import InputError

# Paper: L_seg = focal + 0.5 Dice. Code: the focal loss's exponent.
DICE_WEIGHT = 0.5
FOCAL_GAMMA = 2.0
# Code: four patches centered on a lesion voxel for each one that is not.
FOREGROUND_SHARE = 0.8


class RecipeISBI2024(PredictsWithoutMirroring):
    """Common part of the paper's networks with and without heads; use one of the two trainers below.

    Neither the paper nor the code mirrors at prediction.

    Attributes:
        epochs: number of epochs, from the paper; each has nnU-Net's number of iterations.
        learning_rate: initial value; the better of the paper's two.
        adam_weight_decay: from the code.
    """

    epochs: int = PAPER_EPOCHS
    learning_rate: float = 1e-4
    adam_weight_decay: float = 5e-4
    # Set by nnU-Net's trainer.
    oversample_foreground_percent: float

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (nnU-Net's signature)
    ):
        manager = PlansManager(plans)
        if manager.get_label_manager(dataset_json).has_regions:
            raise InputError(
                f"{manager.dataset_name} has region-based labels, but the paper's loss needs one label per voxel. "
                "Train nnUNetTrainerConfLUNet, or declare plain integer labels in dataset.json."
            )
        refuse_to_replace(type(self))
        super().__init__(plans, configuration, fold, dataset_json, device)
        set_epochs(self)
        # Paper: the network has one output.
        self.enable_deep_supervision = False
        set_unless_mixed_in(
            self,
            initial_lr=self.learning_rate,
            weight_decay=self.adam_weight_decay,
            # nnU-Net's fixed number of patches with foreground per batch cannot be 0.8 of 2.
            probabilistic_oversampling=True,
            oversample_foreground_percent=FOREGROUND_SHARE,
        )

    def _set_batch_size_and_oversample(self) -> None:
        """nnU-Net divides a fixed number among processes; a probability is the same in each of them."""
        share = self.oversample_foreground_percent
        super()._set_batch_size_and_oversample()
        self.oversample_foreground_percent = share

    @classmethod
    def build_network_architecture(cls, plans_manager: PlansManager, *args: Any, **kwargs: Any) -> nn.Module:
        """The next class's network, with the outputs frozen that only deep supervision uses.

        nnU-Net always builds them, but distributed training fails for parameters that do not contribute to the loss.
        """
        network = super().build_network_architecture(plans_manager, *args, **kwargs)
        output_layers(network)[:-1].requires_grad_(False)
        return network

    @UnlessMixedIn
    def configure_optimizers(self) -> tuple[Optimizer, LRScheduler]:
        """Adam (paper), its weight decay and the cosine to 0 over all epochs (code)."""
        optimizer = Adam(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, CosineAnnealingLR(optimizer, T_max=self.num_epochs)

    @UnlessMixedIn
    def _build_loss(self) -> DC_and_CE_loss:
        # nnU-Net's own compound loss, which handles the ignore label and distributed training. Its Dice is that of the
        # code up to a constant 1: foreground only, smoothed by 1e-5.
        loss = nnUNetTrainer._build_loss(self)
        loss.ce = FocalLoss(FOCAL_GAMMA, self.label_manager.ignore_label)
        loss.weight_dice = DICE_WEIGHT
        return loss


class nnUNetTrainerConfLUNetISBI2024Semantic(RecipeISBI2024):
    """The semantic U-Net of the paper's baselines CC and ACLS: the same recipe without the heads."""


class nnUNetTrainerConfLUNetISBI2024(nnUNetTrainerConfLUNet, RecipeISBI2024):
    """ConfLUNet with the losses, weights and optimizer of the paper; ``3d_conflunet`` is its configuration.

    Attributes:
        epochs: the recipe's.
        alpha: weight of the center loss; the best of the paper's five values.
        center_focus: none in the paper.
        beta: weight of the offset loss, per mm, of the mean over an offset's components; the best of the paper's three
            values.
        warm_up: none in the paper.
        sigma_mm: the paper's 2 mm.
        learn_merging: the paper does not merge.
        instantiation: heatmap threshold, window and connectivity are from the code, which has neither prominence nor
            consistency; the size limits are from the paper.
    """

    epochs: int = PAPER_EPOCHS
    alpha: float = 2000.0
    center_focus: float = 0.0
    beta: float = 0.5
    warm_up: float = 0.0
    sigma_mm: float = 2.0
    learn_merging: bool = False
    instantiation: InstantiationSettings = InstantiationSettings(
        method="center_offset",
        heatmap_threshold=0.1,
        window_mm=3.0,
        min_prominence=0.0,
        min_consistency=0.0,
        connectivity=6,
        min_volume_mm3=PAPER_LIMITS.min_volume_mm3,
        min_extent_mm=PAPER_LIMITS.min_extent_mm,
    )

    @classmethod
    def build_network_architecture(cls, plans_manager: PlansManager, *args: Any, **kwargs: Any) -> nn.Module:
        """The next class's network with heads, which are initialized like all other channels (code), not at zero."""
        network: Any = super().build_network_architecture(plans_manager, *args, **kwargs)
        output_layers(network).apply(network.initialize)
        return network

    def _build_loss(self) -> ConfLUNetLoss:
        loss = super()._build_loss()
        # The code averages over the components; ConfLUNetLoss sums over them.
        loss.beta = self.beta / len(self.configuration_manager.patch_size)
        return loss
