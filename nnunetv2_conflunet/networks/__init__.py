"""nnU-Net's networks, widened by center and offset heads."""

from nnunetv2_conflunet.networks.heads import (
    HeadChannels,
    heads_of,
    output_layers,
    set_training_without_deep_supervision,
    unwrapped,
    widen_with_heads,
)

__all__ = [
    "HeadChannels",
    "heads_of",
    "output_layers",
    "set_training_without_deep_supervision",
    "unwrapped",
    "widen_with_heads",
]
