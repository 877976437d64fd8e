"""The trainers for ``nnUNetv2_train -tr``."""

from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.isbi2024 import nnUNetTrainerConfLUNetISBI2024, nnUNetTrainerConfLUNetISBI2024Semantic
from nnunetv2_conflunet.trainers.variants import EPOCH_VARIANTS, nnUNetTrainerConfLUNetPasting

globals().update(EPOCH_VARIANTS)

__all__ = [
    "nnUNetTrainerConfLUNet",
    "nnUNetTrainerConfLUNetISBI2024",
    "nnUNetTrainerConfLUNetISBI2024Semantic",
    "nnUNetTrainerConfLUNetPasting",
]
__all__.extend(EPOCH_VARIANTS)
