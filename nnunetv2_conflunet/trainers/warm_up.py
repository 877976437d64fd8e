"""The beginning of a training: first the mask, then the heads.

Lesions are so small a part of a patch that a network first learns to call everything background. nnU-Net's momentum of
0.99 carries it far beyond that point, where the mask has hardly a gradient and a small network may stay for hundreds of
steps; with heads that are trained meanwhile it may stay there to the end (docs/training.md).
"""

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.optim import Optimizer

# Pseudo Dice from which on the mask counts as being learned, and the share of the epochs after which nothing waits for
# it any longer.
LEARNED_DICE, LATEST_BEGIN = 0.1, 0.5


class BeginsWithLessMomentum(nnUNetTrainer):
    """nnU-Net's trainer with a smaller momentum until the mask has begun to be learned.

    Attributes:
        early_momentum: that momentum; 0.99 is nnU-Net's own.
    """

    early_momentum: float = 0.9

    def on_train_epoch_start(self) -> None:
        """Also set the momentum of this epoch."""
        super().on_train_epoch_start()
        set_momentum(self.optimizer, self.current_epoch, self.mask_began(), self.early_momentum)
        momentum = self.optimizer.param_groups[0].get("momentum")
        if momentum is not None:
            self.print_to_log_file(f"Current momentum: {momentum}")

    def mask_began(self) -> float:
        """The last epoch before the mask counts as being learned; see :func:`epoch_of_first_mask`."""
        pseudo_dice = self.logger.get_value("mean_fg_dice", step=None)
        return epoch_of_first_mask(pseudo_dice[: self.current_epoch], self.num_epochs)


def epoch_of_first_mask(pseudo_dice: list[float], num_epochs: int) -> float:
    """The first epoch at whose end the mask was being learned, or the last one of the first half of the training.

    Args:
        pseudo_dice: of the epochs so far, NaN where the validation patches had no foreground.
        num_epochs: of the whole training.
    """
    latest = LATEST_BEGIN * num_epochs - 1
    return min([epoch for epoch, dice in enumerate(pseudo_dice) if dice >= LEARNED_DICE] + [latest])


def heads_weight(epoch: int, began: float, num_epochs: int, warm_up: float) -> float:
    """Factor of the losses of the heads: 0 up to the epoch `began`, then a line to 1 over a share `warm_up` of all.

    Without a warm-up it is 1 from the first epoch on.
    """
    epochs = warm_up * num_epochs
    return float(np.clip((epoch - began) / epochs, 0, 1)) if epochs > 0 else 1.0


def set_momentum(optimizer: Optimizer, epoch: int, began: float, early_momentum: float) -> None:
    """Let SGD have a momentum of at most `early_momentum` up to the epoch `began`, that of its defaults after it.

    Optimizers without a momentum are left as they are.
    """
    own = optimizer.defaults.get("momentum")
    if own is None:
        return
    for group in optimizer.param_groups:
        group["momentum"] = min(own, early_momentum) if epoch <= began else own
