"""The focal loss (Lin et al., ICCV 2017) of softmax outputs, which PyTorch and torchvision have for sigmoids only."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class FocalLoss(nn.Module):
    """Cross-entropy times (1 - p)^gamma, p the probability of the true label, averaged over the labelled voxels.

    Lin et al., eq. 4, with the softmax for p: voxels that are already right count little.

    Args:
        gamma: exponent, 0 (the cross-entropy) or at least 1: between them a certain voxel's gradient is infinite.
        ignore_label: voxels of this label take no part; None: every voxel does.
    """

    def __init__(self, gamma: float = 2.0, ignore_label: int | None = None):
        super().__init__()
        self.gamma = gamma
        self.ignore_label = ignore_label

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean, computed in float32; 0 where no voxel is labelled.

        Args:
            logits: (B, C, ...) of any floating dtype.
            labels: (B, ...) of any dtype, whole numbers below C, or the ignore label.
        """
        # cross_entropy's own default, which no label has.
        ignored = -100 if self.ignore_label is None else self.ignore_label
        labels = labels.long()
        entropy = cross_entropy(logits.float(), labels, reduction="none", ignore_index=ignored)
        focal = (1 - torch.exp(-entropy)) ** self.gamma * entropy
        return focal.sum() / (labels != ignored).sum().clamp(min=1)
