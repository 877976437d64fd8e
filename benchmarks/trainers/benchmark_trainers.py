"""Trainers of the experiments, found by nnU-Net because ``nnUNet_extTrainer`` names this folder too.

``nnUNetv2_train`` has no options for a seed, a budget or the weights of the losses. These trainers take them from the
environment: BENCHMARK_SETTINGS is JSON such as ``{"seed": 1, "num_epochs": 10, "alpha": 500}``;
``"pasting"`` has the fields of PastingSettings.
"""

import json
import os
import random

import numpy as np
import torch

from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet, nnUNetTrainerConfLUNetISBI2024
from nnunetv2_conflunet.trainers.pasting import PastingSettings
from nnunetv2_conflunet.trainers.variants import PredictsWithoutMirroring
from nnunetv2_conflunet.trainers.warm_up import BeginsWithLessMomentum


class FromEnvironment(PredictsWithoutMirroring):
    """Sets seeds before the trainer is made, and its attributes afterward. Like the paper, it does not mirror.

    The seed fixes the initial weights; the workers that load and augment patches seed themselves.
    """

    bfloat16 = False

    def __init__(self, plans, configuration, fold, dataset_json, device):
        settings = json.loads(os.environ.get("BENCHMARK_SETTINGS", "{}"))
        seed = settings.pop("seed", 0)
        for source in (random.seed, np.random.seed, torch.manual_seed):
            source(seed)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if settings.get("pasting") is not None:
            settings["pasting"] = PastingSettings(**settings["pasting"])
        for name, value in settings.items():
            if not hasattr(self, name):
                raise AttributeError(f"BENCHMARK_SETTINGS: {type(self).__name__} has no attribute {name}")
            setattr(self, name, value)

    def initialize(self):
        super().initialize()
        if self.bfloat16:
            compute_in_bfloat16(self.network)


class nnUNetTrainerBenchmarkSemantic(FromEnvironment, BeginsWithLessMomentum):
    """nnU-Net's trainer with this package's initial momentum, since short trainings would otherwise differ in it."""


class nnUNetTrainerBenchmarkConfLUNet(FromEnvironment, nnUNetTrainerConfLUNet):
    """This package's trainer."""


class nnUNetTrainerBenchmarkISBI2024(FromEnvironment, nnUNetTrainerConfLUNetISBI2024):
    """The paper's recipe."""


def compute_in_bfloat16(network):
    """Convolutions in bfloat16 with channels last, outputs in float32: twice as fast on processors that support it."""
    network.to(memory_format=torch.channels_last_3d)
    forward = network.forward

    def forward_in_bfloat16(x):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=network.training):
            output = forward(x)
        return [scale.float() for scale in output] if isinstance(output, list | tuple) else output.float()

    network.forward = forward_in_bfloat16
