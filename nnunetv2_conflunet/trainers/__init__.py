"""The trainers for ``nnUNetv2_train -tr``."""

from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.isbi2024 import (
    nnUNetTrainerConfLUNetISBI2024,
    nnUNetTrainerConfLUNetISBI2024Semantic,
)
from nnunetv2_conflunet.trainers.variants import (
    nnUNetTrainerConfLUNet_1epoch,
    nnUNetTrainerConfLUNet_5epochs,
    nnUNetTrainerConfLUNet_10epochs,
    nnUNetTrainerConfLUNet_20epochs,
    nnUNetTrainerConfLUNet_50epochs,
    nnUNetTrainerConfLUNet_100epochs,
    nnUNetTrainerConfLUNet_250epochs,
    nnUNetTrainerConfLUNet_500epochs,
    nnUNetTrainerConfLUNet_2000epochs,
    nnUNetTrainerConfLUNet_4000epochs,
    nnUNetTrainerConfLUNet_8000epochs,
)

__all__ = [
    "nnUNetTrainerConfLUNet",
    "nnUNetTrainerConfLUNetISBI2024",
    "nnUNetTrainerConfLUNetISBI2024Semantic",
    "nnUNetTrainerConfLUNet_1epoch",
    "nnUNetTrainerConfLUNet_5epochs",
    "nnUNetTrainerConfLUNet_10epochs",
    "nnUNetTrainerConfLUNet_20epochs",
    "nnUNetTrainerConfLUNet_50epochs",
    "nnUNetTrainerConfLUNet_100epochs",
    "nnUNetTrainerConfLUNet_250epochs",
    "nnUNetTrainerConfLUNet_500epochs",
    "nnUNetTrainerConfLUNet_2000epochs",
    "nnUNetTrainerConfLUNet_4000epochs",
    "nnUNetTrainerConfLUNet_8000epochs",
]
