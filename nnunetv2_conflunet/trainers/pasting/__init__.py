"""Pasting lesions into training patches."""

from nnunetv2_conflunet.trainers.pasting.lesions import LesionStore, stored_lesions
from nnunetv2_conflunet.trainers.pasting.transform import PasteLesions, PastingSettings

__all__ = ["LesionStore", "PasteLesions", "PastingSettings", "stored_lesions"]
