"""Trainers of the demo, found by nnU-Net because ``nnUNet_extTrainer`` names this folder too."""

from functools import wraps

import torch

from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.variants import PredictsWithoutMirroring


class nnUNetTrainerConfLUNetDemo(PredictsWithoutMirroring, nnUNetTrainerConfLUNet):
    """1,000 iterations, for training on two cores."""

    epochs = 10

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 100
        self.num_val_iterations_per_epoch = 10
        # An epoch takes most of a minute: an interrupted demo resumes after the last one.
        self.save_every = 1

    @staticmethod
    @wraps(nnUNetTrainerConfLUNet.build_network_architecture)
    def build_network_architecture(*args, **kwargs):
        """The network of the plans, with the memory layout that is fastest on CPUs."""
        network = nnUNetTrainerConfLUNet.build_network_architecture(*args, **kwargs)
        return network.to(memory_format=torch.channels_last_3d)
