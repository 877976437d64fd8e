"""Trainers that change one thing: the number of epochs, as in nnU-Net's variants, pasting, or mirroring."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_conflunet.trainers.conflunet_trainer import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.pasting import PastingSettings


class nnUNetTrainerConfLUNetPasting(nnUNetTrainerConfLUNet):
    """Pastes lesions into its training patches, see :mod:`.trainers.pasting`."""

    pasting = PastingSettings()


class PredictsWithoutMirroring(nnUNetTrainer):
    """nnU-Net's augmentation, but no mirroring at validation and prediction, which would take eight times as long."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """As in nnU-Net, but without axes to mirror at prediction."""
        settings = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return settings


def _of_epochs(epochs: int) -> type:
    """``nnUNetTrainerConfLUNet`` with another number of epochs, which ends its name."""
    name = f"{nnUNetTrainerConfLUNet.__name__}_{epochs}epoch{'s' if epochs > 1 else ''}"
    members = {"epochs": epochs, "__doc__": f"Trains for {epochs:,} epochs.", "__module__": __name__}
    return type(name, (nnUNetTrainerConfLUNet,), members)


# nnUNetTrainerConfLUNet_1epoch, for trying out a dataset and a machine, nnUNetTrainerConfLUNet_5epochs and so on.
EPOCH_VARIANTS = {kind.__name__: kind for kind in map(_of_epochs, (1, 5, 10, 20, 50, 100, 250, 500, 2000, 4000, 8000))}
globals().update(EPOCH_VARIANTS)
