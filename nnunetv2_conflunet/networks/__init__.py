"""nnU-Net's networks with the channels of the center and offset heads."""

from nnunetv2_conflunet.networks.heads import Heads, heads_of, output_layers, unwrapped, widen_with_heads

__all__ = ["Heads", "heads_of", "output_layers", "unwrapped", "widen_with_heads"]
