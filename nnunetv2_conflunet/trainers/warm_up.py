"""The beginning of training: first the mask, then the heads.

Lesions are such a small part of a patch that a network first learns to call everything background. nnU-Net's momentum
of 0.99 carries it far past that point, into a region where the mask has hardly any gradient. A small network may stay
there for hundreds of steps, and until the end if the heads are trained at the same time (docs/training.md).
"""

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim import Optimizer

# Pseudo Dice above which the mask counts as being learned, and the fraction of epochs after which it always does.
LEARNED_DICE, LATEST_BEGIN = 0.1, 0.5


class BeginsWithLessMomentum(nnUNetTrainer):
    """nnU-Net's trainer with a smaller momentum until the network begins to learn the mask.

    Attributes:
        early_momentum: this momentum; nnU-Net's own is 0.99.
    """

    early_momentum: float = 0.9

    def on_train_epoch_start(self) -> None:
        """Also set the momentum of this epoch."""
        super().on_train_epoch_start()
        set_momentum(self.optimizer, self.current_epoch, self.epoch_of_first_mask(), self.early_momentum)
        momentum = self.optimizer.param_groups[0].get("momentum")
        if momentum is not None:
            self.print_to_log_file(f"Current momentum: {momentum}")

    def epoch_of_first_mask(self) -> float:
        """The function of the same name, applied to the pseudo Dice of the epochs before the current one."""
        pseudo_dice = self.logger.get_value("mean_fg_dice", step=None)
        return epoch_of_first_mask(pseudo_dice[: self.current_epoch], self.num_epochs)


def epoch_of_first_mask(pseudo_dice: list[float], num_epochs: int) -> float:
    """The first epoch at whose end the mask was being learned, at the latest the last epoch of the first half.

    Args:
        pseudo_dice: of the epochs so far, NaN if the validation patches had no foreground.
        num_epochs: of the whole training.

    >>> epoch_of_first_mask([0.0, 0.05, 0.3], num_epochs=20)
    2
    """
    latest = LATEST_BEGIN * num_epochs - 1
    return min([epoch for epoch, dice in enumerate(pseudo_dice) if dice >= LEARNED_DICE] + [latest])


def heads_weight(epoch: int, first_mask: float, num_epochs: int, warm_up: float) -> float:
    """Factor of the heads' losses: 0 up to the epoch `first_mask`, then rising linearly to 1.

    Args:
        epoch: the current one.
        first_mask: :func:`epoch_of_first_mask`.
        num_epochs: of the whole training.
        warm_up: fraction of all epochs over which it rises; 0: the factor is always 1.

    >>> heads_weight(epoch=3, first_mask=2, num_epochs=20, warm_up=0.2)
    0.25
    """
    epochs = warm_up * num_epochs
    return float(np.clip((epoch - first_mask) / epochs, 0, 1)) if epochs > 0 else 1.0


def set_momentum(optimizer: Optimizer, epoch: int, first_mask: float, early_momentum: float) -> None:
    """Limit SGD's momentum to `early_momentum` up to the epoch `first_mask`; afterwards use its default.

    Optimizers without momentum are not changed.
    """
    own = optimizer.defaults.get("momentum")
    if own is None:
        return
    for group in optimizer.param_groups:
        group["momentum"] = min(own, early_momentum) if epoch <= first_mask else own
