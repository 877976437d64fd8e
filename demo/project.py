"""A folder with nnU-Net's three folders in it, and its commands run there as a user types them."""

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path
from nnunetv2_conflunet.utilities.files import read_json, write_json

# One worker of each kind: on two cores more of them, each of which imports PyTorch, wait for each other.
LIMITS = {
    "nnUNet_def_n_proc": "1",
    "nnUNet_n_proc_DA": "1",
    "nnUNet_compile": "f",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
}
PATCH_MM = 48


class Project:
    """nnU-Net's folders ``raw``, ``preprocessed`` and ``results`` under one folder.

    Args:
        base: the folder.
        own_trainers: a folder with further trainers.
        limits: further environment variables of every command.
    """

    def __init__(self, base, own_trainers, limits=LIMITS):
        self.base = Path(base)
        self.environment = {
            **os.environ,
            **limits,
            **{f"nnUNet_{i}": str(self.base / i) for i in ("raw", "preprocessed", "results")},
            "nnUNet_extTrainer": os.pathsep.join([str(nnunet_ext_path()), str(own_trainers)]),
        }

    def run(self, command, **variables):
        """Run a command of this Python's environment, or of the search path, showing it and what it prints."""
        print(f"$ {command}", flush=True)
        program, *arguments = shlex.split(command)
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        executable = shutil.which(program, path=places) or sys.exit(f"{program} is not found in {places}")
        subprocess.run([executable, *arguments], env={**self.environment, **variables}, check=True)

    def add_configuration(self, dataset, name, make):
        """Write ``make(3d_fullres)`` into a dataset's plans as a configuration."""
        path = self.base / "preprocessed" / dataset / "nnUNetPlans.json"
        plans = read_json(path)
        plans["configurations"][name] = make(plans["configurations"]["3d_fullres"])
        write_json(plans, path)


def keep_settings(path, args, names):
    """Write down the arguments on which the steps in a folder depend, and end a later run that asks for something else.

    A step that has finished is skipped: with other settings it would stand for what it is not.
    """
    settings = {name: getattr(args, name) for name in names}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings, path)
    elif (before := read_json(path)) != settings:
        sys.exit(f"{path}: this folder was begun with {before}, not with {settings}. Choose another folder.")


def continue_option(fold):
    """The option of nnUNetv2_train that goes on where a training in this folder was stopped; none where none was."""
    return "--c" if list(Path(fold).glob("checkpoint_*.pth")) else ""


def small_configuration(parent):
    """A configuration that inherits from 3d_fullres: smaller patches, a network of 16 to 128 features.

    Mask, heatmap and offsets share the last layer: with 8 features they are learned at each other's cost
    (docs/experiments.md). One convolution instead of two at the full resolution makes up for most of the time.
    """
    patch = [16 * max(1, round(PATCH_MM / spacing / 16)) for spacing in parent["spacing"]]
    n_stages = 4
    # An axis of few, thick slices is halved only while more than 4 voxels of it are left.
    strides = [[1, 1, 1]] + [[2 if patch[i] >> k > 4 else 1 for i in range(3)] for k in range(n_stages - 1)]
    architecture = json.loads(json.dumps(parent["architecture"]))
    architecture["arch_kwargs"].update(
        n_stages=n_stages,
        features_per_stage=[16 * 2**i for i in range(n_stages)],
        kernel_sizes=[[3, 3, 3]] * n_stages,
        strides=strides,
        n_conv_per_stage=[1] + [2] * (n_stages - 1),
        n_conv_per_stage_decoder=[2] * (n_stages - 2) + [1],
    )
    # A step sees as many voxels whatever the spacing: with fewer of them the mask may not begin to be learned.
    batch_size = max(2, round(2 * PATCH_MM**3 / math.prod(patch)))
    return {"inherits_from": "3d_fullres", "patch_size": patch, "batch_size": batch_size, "architecture": architecture}
