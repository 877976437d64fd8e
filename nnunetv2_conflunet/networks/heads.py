"""Center and offset heads as additional output channels of any nnU-Net network.

The last convolution of a network returns the semantic channels, then the center heatmap, then the offsets in mm, one
channel per spatial axis (Wynen et al., ISBI 2024, Fig. 1). No module is added, so the names in the state dict stay
those of the stock network.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_conflunet.utilities.errors import InputError

ATTRIBUTE = "conflunet_heads"


@dataclass(frozen=True)
class HeadChannels:
    """The layout of the output channels.

    Attributes:
        n_semantic: number of semantic channels, which come first.
        dim: number of spatial axes, 2 or 3.

    >>> channels = HeadChannels(n_semantic=2, dim=3)
    >>> channels.n_channels, channels.offset(axis=0)
    (6, 3)
    """

    n_semantic: int
    dim: int

    @property
    def n_channels(self) -> int:
        """All output channels: semantic, heatmap, offsets."""
        return self.n_semantic + 1 + self.dim

    def offset(self, axis: int) -> int:
        """Index of the channel of the offsets along a spatial axis."""
        return self.n_semantic + 1 + axis

    def split(self, module: nn.Module, _: tuple, output: torch.Tensor | list | tuple) -> list | None:
        """Forward hook of the decoder: ``[semantic scales ..., heads]`` in training, the output unchanged in inference.

        With deep supervision a decoder returns a list. Its first entry has full resolution, at which alone the heads
        are trained.
        """
        if isinstance(output, list | tuple):
            scales, finest = [scale[:, : self.n_semantic] for scale in output], output[0]
        elif module.training_without_deep_supervision:
            scales, finest = [output[:, : self.n_semantic]], output
        else:
            return None
        return [*scales, finest[:, self.n_semantic :]]


def widen_with_heads(network: nn.Module, heads: HeadChannels) -> nn.Module:
    """Make a stock network with ``heads.n_channels`` outputs return its heads separately in training, starting at zero.

    At zero the heads send no gradient into the shared trunk until they have learned something themselves. With random
    weights, their initially large error in the empty background would swamp the semantic loss.

    Args:
        network: an nnU-Net network with a ``decoder`` whose ``seg_layers`` are its output convolutions.
        heads: the layout of its output channels.

    Returns:
        The same network.

    Raises:
        InputError: the network has no such layers.

    >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
    >>> heads = HeadChannels(n_semantic=2, dim=2)
    >>> network = PlainConvUNet(1, 2, (4, 8), nn.Conv2d, 3, (1, 2), 1, heads.n_channels, 1, deep_supervision=True)
    >>> [tuple(output.shape) for output in widen_with_heads(network, heads)(torch.zeros(1, 1, 8, 8))]
    [(1, 2, 8, 8), (1, 3, 8, 8)]
    """
    with torch.no_grad():
        for parameter in (p for layer in output_layers(network) for p in layer.parameters()):
            parameter[heads.n_semantic :] = 0
    setattr(network, ATTRIBUTE, heads)
    set_training_without_deep_supervision(network, False)
    # On the decoder, whose output is the network's: torch.compile includes a hook inside the network in its graph.
    network.get_submodule("decoder").register_forward_hook(heads.split)
    # nnU-Net loads weights in its own code, so only the network itself can say what does not match.
    network._register_load_state_dict_pre_hook(_refuse_other_weights, with_module=True)
    return network


def set_training_without_deep_supervision(network: nn.Module, on: bool) -> bool:
    """Choose whether a network without deep supervision returns its heads separately, as in training.

    Args:
        network: a network from :func:`widen_with_heads`, wrapped or not.
        on: True in training, False in inference.

    Returns:
        The previous choice.

    >>> network = nn.ModuleDict({"decoder": nn.Identity()})
    >>> set_training_without_deep_supervision(network, True), set_training_without_deep_supervision(network, False)
    (False, True)
    """
    decoder: Any = unwrapped(network).get_submodule("decoder")
    before = getattr(decoder, "training_without_deep_supervision", False)
    decoder.training_without_deep_supervision = on
    return before


def output_layers(network: nn.Module) -> nn.ModuleList:
    """The output convolutions of an nnU-Net network, that of the finest scale last.

    Raises:
        InputError: the network has no such layers.

    >>> network = nn.ModuleDict({"decoder": nn.ModuleDict({"seg_layers": nn.ModuleList([nn.Conv3d(8, 2, 1)])})})
    >>> output_layers(network)[-1].out_channels
    2
    """
    layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
    if layers is None:
        raise InputError(
            f"{type(network).__name__} has no decoder with seg_layers, as nnU-Net's U-Nets do; ConfLUNet cannot add "
            "its heads to it. Use the plans of a plain or residual-encoder U-Net."
        )
    return layers


def _refuse_other_weights(network: nn.Module, weights: dict, prefix: str, *_) -> None:
    # Missing and unexpected keys are left to torch, which knows whether loading is strict.
    for name, parameter in network.state_dict().items():
        saved = weights.get(prefix + name)
        if saved is not None and saved.shape != parameter.shape:
            raise InputError(
                f"The weights of the checkpoint do not fit this network with center and offset heads: {name} has the "
                f"shape {tuple(saved.shape)} instead of {tuple(parameter.shape)}. To start training from a model "
                "without heads, use -pretrained_weights."
            )


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel and torch.compile, in any order and however often.

    >>> network = nn.Linear(1, 1)
    >>> unwrapped(torch.compile(network)) is network
    True
    """
    # nnU-Net's predictor compiles the network of a trainer once more, also one that is compiled and distributed.
    while isinstance(network, DistributedDataParallel | OptimizedModule):
        network = network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
    return network


def heads_of(network: nn.Module | None) -> HeadChannels | None:
    """The channel layout of a network from :func:`widen_with_heads`; None for any other network.

    >>> heads_of(nn.Linear(1, 1)) is None
    True
    """
    return None if network is None else getattr(unwrapped(network), ATTRIBUTE, None)
