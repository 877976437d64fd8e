"""The beginning of a training: first the mask, then the heads.

Lesions are so small a part of a patch that a network first learns to call everything background. nnU-Net's momentum of
0.99 carries it far beyond that point, where the mask has hardly a gradient and a small network may stay for hundreds of
steps; while the heads are trained as well, it may stay there until the end (docs/training.md).
"""

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim import Optimizer

# Pseudo Dice from which on the mask counts as being learned, and the share of the epochs after which it counts anyway.
LEARNED_DICE, LATEST_BEGIN = 0.1, 0.5


class BeginsWithLessMomentum(nnUNetTrainer):
    """nnU-Net's trainer with a smaller momentum until the mask begins to be learned.

    Attributes:
        early_momentum: that momentum; 0.99 is nnU-Net's own.
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
        """See the function of the same name; from the pseudo Dice of the epochs before the current one."""
        pseudo_dice = self.logger.get_value("mean_fg_dice", step=None)
        return epoch_of_first_mask(pseudo_dice[: self.current_epoch], self.num_epochs)


def epoch_of_first_mask(pseudo_dice: list[float], num_epochs: int) -> float:
    """The first epoch at whose end the mask was being learned, or the last one of the first half of the training.

    Args:
        pseudo_dice: of the epochs so far, NaN where the validation patches had no foreground.
        num_epochs: of the whole training.

    >>> epoch_of_first_mask([0.0, 0.05, 0.3], num_epochs=20)
    2
    """
    latest = LATEST_BEGIN * num_epochs - 1
    return min([epoch for epoch, dice in enumerate(pseudo_dice) if dice >= LEARNED_DICE] + [latest])


def heads_weight(epoch: int, first_mask: float, num_epochs: int, warm_up: float) -> float:
    """Factor of the losses of the heads: 0 up to the epoch `first_mask`, then linearly to 1.

    Args:
        epoch: the current one.
        first_mask: :func:`epoch_of_first_mask`.
        num_epochs: of the whole training.
        warm_up: share of all epochs over which it rises; 0: it is 1 from the first epoch on.

    >>> heads_weight(epoch=3, first_mask=2, num_epochs=20, warm_up=0.2)
    0.25
    """
    epochs = warm_up * num_epochs
    return float(np.clip((epoch - first_mask) / epochs, 0, 1)) if epochs > 0 else 1.0


def set_momentum(optimizer: Optimizer, epoch: int, first_mask: float, early_momentum: float) -> None:
    """Let SGD have a momentum of at most `early_momentum` up to the epoch `first_mask`, that of its defaults after it.

    Optimizers without a momentum are left as they are.
    """
    own = optimizer.defaults.get("momentum")
    if own is None:
        return
    for group in optimizer.param_groups:
        group["momentum"] = min(own, early_momentum) if epoch <= first_mask else own
