"""Prediction without mirroring."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class PredictsWithoutMirroring(nnUNetTrainer):
    """nnU-Net's augmentation, and no mirroring at validation and prediction, which takes eight times as long."""

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:
        """nnU-Net's, with no axes to mirror at prediction."""
        settings = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None
        return settings
