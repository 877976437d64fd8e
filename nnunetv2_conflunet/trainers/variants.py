"""Trainers that change one thing: the number of epochs, as nnU-Net has them, or mirroring at prediction."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet


class PredictsWithoutMirroring(nnUNetTrainer):
    """nnU-Net's augmentation, and no mirroring at validation and prediction, which takes eight times as long."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """nnU-Net's, with no axes to mirror at prediction."""
        settings = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return settings


def _of_epochs(epochs: int) -> type:
    """``nnUNetTrainerConfLUNet`` with another number of epochs, which its name ends with."""
    name = f"{nnUNetTrainerConfLUNet.__name__}_{epochs}epoch{'s' if epochs > 1 else ''}"
    members = {"epochs": epochs, "__doc__": f"Trains for {epochs:,} epochs.", "__module__": __name__}
    return type(name, (nnUNetTrainerConfLUNet,), members)


# The first is there to see that a dataset and a machine work.
nnUNetTrainerConfLUNet_1epoch = _of_epochs(1)
nnUNetTrainerConfLUNet_5epochs = _of_epochs(5)
nnUNetTrainerConfLUNet_10epochs = _of_epochs(10)
nnUNetTrainerConfLUNet_20epochs = _of_epochs(20)
nnUNetTrainerConfLUNet_50epochs = _of_epochs(50)
nnUNetTrainerConfLUNet_100epochs = _of_epochs(100)
nnUNetTrainerConfLUNet_250epochs = _of_epochs(250)
nnUNetTrainerConfLUNet_500epochs = _of_epochs(500)
nnUNetTrainerConfLUNet_2000epochs = _of_epochs(2000)
nnUNetTrainerConfLUNet_4000epochs = _of_epochs(4000)
nnUNetTrainerConfLUNet_8000epochs = _of_epochs(8000)
