"""Whether saved weights fit a network."""

import torch
from torch import nn


def shape_difference(network: nn.Module, weights: dict[str, torch.Tensor]) -> str | None:
    """The first parameter whose shape differs from the saved one, in words; None when there is none.

    Missing and surplus keys are left to torch, which knows whether loading is strict.

    Args:
        network: without DistributedDataParallel and torch.compile around it.
        weights: a state dict.
    """
    for key, value in network.state_dict().items():
        if key in weights and weights[key].shape != value.shape:
            return f"{key} has the shape {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
    return None
