"""Trainers of the experiments, found by nnU-Net because ``nnUNet_extTrainer`` names this folder too.

``nnUNetv2_train`` has no options for a seed, a budget or the weights of the losses. These trainers take them from the
environment: BENCHMARK_SETTINGS is JSON such as ``{"seed": 1, "num_epochs": 10, "alpha": 500}``.
"""

import json
import os
import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet, nnUNetTrainerConfLUNetISBI2024
from nnunetv2_conflunet.trainers.mirroring import PredictsWithoutMirroring


class FromEnvironment(PredictsWithoutMirroring):
    """Sets seeds before the trainer is made, and attributes of the trainer after it. The paper does not mirror either.

    The seed fixes the initial weights; the workers that load and augment patches seed themselves.
    """

    def __init__(self, plans, configuration, fold, dataset_json, device):
        settings = json.loads(os.environ.get("BENCHMARK_SETTINGS", "{}"))
        seed = settings.pop("seed", 0)
        for source in (random.seed, np.random.seed, torch.manual_seed):
            source(seed)
        super().__init__(plans, configuration, fold, dataset_json, device)
        for name, value in settings.items():
            if not hasattr(self, name):
                raise AttributeError(f"BENCHMARK_SETTINGS: {type(self).__name__} has no attribute {name}")
            setattr(self, name, value)


class nnUNetTrainerBenchmarkSemantic(FromEnvironment, nnUNetTrainer):
    """nnU-Net's own."""


class nnUNetTrainerBenchmarkConfLUNet(FromEnvironment, nnUNetTrainerConfLUNet):
    """This package's."""


class nnUNetTrainerBenchmarkISBI2024(FromEnvironment, nnUNetTrainerConfLUNetISBI2024):
    """The paper's recipe."""
