"""L = L_seg + alpha * L_center + beta * L_offsets (Wynen et al., ISBI 2024)."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from nnunetv2_conflunet.trainers.targets import (
    HEATMAP,
    HEATMAP_AND_OFFSETS,
    HEATMAP_ONLY,
    OFFSETS,
    VALIDITY,
    unpack_targets,
)

PARTS = ("seg", "center", "offsets")
MEASURED = "measured"


class ConfLUNetLoss(nn.Module):
    """nnU-Net's semantic loss plus the losses of the two heads, computed in float32.

    L_center is the mean squared error of the heatmap over all labeled voxels, weighted toward the centers. L_offsets is
    the L1 norm of the offset error in mm, averaged over the lesion voxels of the batch; 0 if there are none.

    Args:
        semantic: nnU-Net's loss; it takes lists of scales with deep supervision, single tensors without.
        alpha: weight of the center loss.
        beta: weight of the offset loss, per mm.
        deep_supervision: whether `semantic` takes lists.
        center_focus: additional weight of a voxel at a center in L_center, relative to background.
        spacing_mm: voxel size of the patches.
        sigma_mm: standard deviation of the heatmap's Gaussians.

    Attributes:
        heads_weight: factor of both weights, which the trainer raises to 1 during warm-up.
        parts: the three terms of the last call, unweighted and detached, by the names in ``PARTS``.
        measured: (3,) bool, in the same order: whether any voxel of the last call had a target for the term; otherwise
            the term is 0.
    """

    def __init__(
        self,
        semantic: nn.Module,
        alpha: float,
        beta: float,
        deep_supervision: bool,
        center_focus: float = 0.0,
        *,
        spacing_mm: tuple[float, ...],
        sigma_mm: float,
    ):
        super().__init__()
        self.semantic = semantic
        self.alpha = alpha
        self.beta = beta
        self.deep_supervision = deep_supervision
        self.center_focus = center_focus
        self.spacing_mm = spacing_mm
        self.sigma_mm = sigma_mm
        self.heads_weight = 1.0
        self.parts: dict[str, torch.Tensor] = {}
        self.measured = torch.zeros(len(PARTS), dtype=torch.bool)

    def forward(self, outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
        """The weighted sum.

        The targets of the heads are unpacked here, while a GPU is still busy with the network.

        Args:
            outputs: semantic logits (B, C, ...) of every scale, then the heads (B, 1 + dim, ...).
            targets: semantic labels (B, 1, ...) of every scale, then codes and centers, see :func:`.unpack_targets`.
        """
        return self.weighted_sum(outputs, self.unpacked(targets))

    def unpacked(self, targets: list[torch.Tensor]) -> list[torch.Tensor]:
        """Semantic labels of every scale, then the packed targets of the heads; argument as of :meth:`forward`."""
        *labels, codes, centers = targets
        return [*labels, unpack_targets(codes, centers, self.spacing_mm, self.sigma_mm)]

    def weighted_sum(self, outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> torch.Tensor:
        """The weighted sum for targets of :meth:`unpacked`."""
        terms = self.terms(outputs, targets)
        self.parts = {name: term.detach() for name, term in terms.items()}
        return terms["seg"] + self.heads_weight * (self.alpha * terms["center"] + self.beta * terms["offsets"])

    def logged_parts(self) -> dict[str, np.ndarray]:
        """:attr:`parts`, and :attr:`measured` under the key ``MEASURED``, for a step of nnU-Net's trainer."""
        # A single transfer from the device.
        values, measured = torch.stack([torch.stack(list(self.parts.values())), self.measured.float()]).cpu().numpy()
        return {**dict(zip(self.parts, values, strict=True)), MEASURED: measured > 0}

    def terms(self, outputs: list[torch.Tensor], targets: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The three terms without their weights, by the names in ``PARTS``; arguments as of :meth:`weighted_sum`."""
        *logits, heads = outputs
        *labels, packed = targets
        semantic = self.semantic(logits, labels) if self.deep_supervision else self.semantic(logits[0], labels[0])
        heads, packed = heads.float(), packed.float()
        validity = packed[:, VALIDITY]
        labeled, inside = validity >= HEATMAP_ONLY, validity == HEATMAP_AND_OFFSETS
        self.measured = torch.stack([labeled.new_ones(()), labeled.any(), inside.any()])
        return {
            "seg": semantic,
            "center": center_loss(heads[:, 0], packed[:, HEATMAP], labeled, self.center_focus),
            "offsets": offset_loss(heads[:, 1:], packed[:, OFFSETS], inside),
        }


def center_loss(heatmap: torch.Tensor, target: torch.Tensor, valid: torch.Tensor, focus: float = 0.0) -> torch.Tensor:
    """Squared error weighted by 1 + focus * target, averaged over the valid voxels; 0 if there are none.

    Args:
        heatmap: (B, ...) predicted.
        target: (B, ...) in [0, 1].
        valid: (B, ...) bool.
        focus: additional weight of a voxel at a center, relative to background; 0 is the paper's loss.

    >>> center_loss(torch.tensor([[0.5, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[True, True]])).item()
    0.125
    """
    weight = valid * (1 + focus * target)
    return ((heatmap - target).square() * weight).sum() / valid.sum().clamp(min=1)


def offset_loss(offsets_mm: torch.Tensor, target_mm: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean L1 norm of the offset error over the valid voxels; (B, dim, ...), (B, dim, ...) and (B, ...).

    >>> offset_loss(torch.zeros(1, 3, 2), torch.tensor([[[1.0, 0], [2, 0], [-3, 9]]]), torch.tensor([[1, 0]])).item()
    6.0
    """
    return ((offsets_mm - target_mm).abs().sum(dim=1) * valid).sum() / valid.sum().clamp(min=1)


class FocalLoss(nn.Module):
    """Cross-entropy times (1 - p)^gamma, p the probability of the true label, averaged over the labeled voxels.

    Lin et al., ICCV 2017, eq. 4, with softmax probabilities; torchvision's version uses the sigmoid. Voxels that are
    already classified well have little weight.

    Args:
        gamma: exponent, 0 (cross-entropy) or at least 1; in between, gradients of voxels with p = 1 are infinite.
        ignore_label: voxels with this label are ignored; None: none are.

    >>> FocalLoss(gamma=2.0)(torch.zeros(1, 2, 1), torch.ones(1, 1)).item()  # (1 - 1/2)^2 * log 2
    0.1732867956161499
    """

    def __init__(self, gamma: float = 2.0, ignore_label: int | None = None):
        super().__init__()
        self.gamma = gamma
        self.ignore_label = ignore_label

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean, computed in float32; 0 if no voxel is labeled.

        Args:
            logits: (B, C, ...) of any floating dtype.
            labels: (B, ...) of any dtype, whole numbers below C, or the ignore label.
        """
        # cross_entropy's default, which is not a label.
        ignored = -100 if self.ignore_label is None else self.ignore_label
        labels = labels.long()
        entropy = cross_entropy(logits.float(), labels, reduction="none", ignore_index=ignored)
        focal = (1 - torch.exp(-entropy)) ** self.gamma * entropy
        return focal.sum() / (labels != ignored).sum().clamp(min=1)
