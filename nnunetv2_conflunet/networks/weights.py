"""Whether saved weights fit a network."""

import torch
from torch import nn


def shape_difference(network: nn.Module, weights: dict[str, torch.Tensor]) -> str | None:
    """The first difference between a network's parameters and saved ones, in words; None when they fit.

    Args:
        network: without DistributedDataParallel and torch.compile around it.
        weights: a state dict.
    """
    saved = {key: tuple(value.shape) for key, value in weights.items()}
    for key, value in network.state_dict().items():
        if key not in saved:
            return f"{key} is missing in it"
        if saved[key] != tuple(value.shape):
            return f"{key} has the shape {saved[key]} instead of {tuple(value.shape)}"
    extra = sorted(set(saved) - set(network.state_dict()))
    return f"it also holds {extra[0]}" if extra else None
