"""Pasting lesions into training patches."""

from nnunetv2_conflunet.trainers.pasting.transform import PastingSettings

__all__ = ["PastingSettings"]
