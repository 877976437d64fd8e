"""Shorter and longer trainings, as nnU-Net has them."""

from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet


class nnUNetTrainerConfLUNet_1epoch(nnUNetTrainerConfLUNet):
    """One epoch, to see that a dataset and a machine work."""

    epochs = 1


class nnUNetTrainerConfLUNet_5epochs(nnUNetTrainerConfLUNet):
    """Five epochs."""

    epochs = 5


class nnUNetTrainerConfLUNet_10epochs(nnUNetTrainerConfLUNet):
    """Ten epochs."""

    epochs = 10


class nnUNetTrainerConfLUNet_20epochs(nnUNetTrainerConfLUNet):
    """Twenty epochs."""

    epochs = 20


class nnUNetTrainerConfLUNet_50epochs(nnUNetTrainerConfLUNet):
    """Fifty epochs."""

    epochs = 50


class nnUNetTrainerConfLUNet_100epochs(nnUNetTrainerConfLUNet):
    """A hundred epochs."""

    epochs = 100


class nnUNetTrainerConfLUNet_250epochs(nnUNetTrainerConfLUNet):
    """250 epochs."""

    epochs = 250


class nnUNetTrainerConfLUNet_500epochs(nnUNetTrainerConfLUNet):
    """500 epochs."""

    epochs = 500


class nnUNetTrainerConfLUNet_2000epochs(nnUNetTrainerConfLUNet):
    """2,000 epochs."""

    epochs = 2000


class nnUNetTrainerConfLUNet_4000epochs(nnUNetTrainerConfLUNet):
    """4,000 epochs."""

    epochs = 4000


class nnUNetTrainerConfLUNet_8000epochs(nnUNetTrainerConfLUNet):
    """8,000 epochs."""

    epochs = 8000
