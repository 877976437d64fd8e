"""nnU-Net's three folders under one base folder, and its commands run as a user would type them."""

import argparse
import copy
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.nnunet_plugin.search_path import nnunet_ext_path
from nnunetv2_conflunet.utilities.files import read_json, write_json

# One worker of each kind: each imports PyTorch, and on two cores more of them would slow each other down.
LIMITS = {
    "nnUNet_def_n_proc": "1",
    "nnUNet_n_proc_DA": "1",
    "nnUNet_compile": "f",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
}
PATCH_MM = 48
N_STAGES = 4


class Project:
    """nnU-Net's folders ``raw``, ``preprocessed`` and ``results`` under one folder.

    Args:
        base: the folder.
        own_trainers: a folder with additional trainers.
        limits: additional environment variables for every command.

    Example:
        >>> project = Project("project", "trainers")
        >>> project.environment["nnUNet_raw"]
        'project/raw'
        >>> project.fold("Dataset001_A", "nnUNetTrainer", "3d_fullres").name
        'fold_0'
    """

    def __init__(
        self, base: str | os.PathLike, own_trainers: str | os.PathLike, limits: Mapping[str, str] = LIMITS
    ) -> None:
        self.base = Path(base)
        self.environment = {
            **os.environ,
            **limits,
            **{f"nnUNet_{name}": str(self.base / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_extTrainer": os.pathsep.join([str(nnunet_ext_path()), str(own_trainers)]),
        }

    def run(self, command: str, **variables: str) -> None:
        """Run a command from this Python's environment or the search path, showing the command and its output.

        Args:
            command: a command line, without shell features.
            variables: additional environment variables.
        """
        print(f"$ {command}", flush=True)
        program, *arguments = shlex.split(command)
        subprocess.run([command_path(program), *arguments], env={**self.environment, **variables}, check=True)

    def fold(
        self, dataset: str, trainer: str, configuration: str, fold: str = "0", results: Path | None = None
    ) -> Path:
        """The folder of one fold; `results` replaces the project's own results folder."""
        model = f"{trainer}__nnUNetPlans__{configuration}"
        return (results or self.base / "results") / dataset / model / f"fold_{fold}"

    def train(self, fold: Path, options: str = "", **variables: str) -> None:
        """Train, or resume an interrupted training; does nothing if the fold has been validated.

        Args:
            fold: its folder, from :meth:`fold`.
            options: of nnUNetv2_train.
            variables: additional environment variables.
        """
        if (fold / "validation" / "summary.json").exists():
            return
        number = int(fold.parents[1].name.removeprefix("Dataset").partition("_")[0])
        trainer, _, configuration = fold.parent.name.split("__")
        again = " --c" if list(fold.glob("checkpoint_*.pth")) else ""
        self.run(
            f"nnUNetv2_train {number} {configuration} {fold.name.removeprefix('fold_')} -tr {trainer} {options}{again}",
            nnUNet_results=str(fold.parents[2]),
            **variables,
        )

    def add_configuration(self, dataset: str, name: str, make: Callable[[dict], dict]) -> None:
        """Add the configuration ``make(3d_fullres)`` to a dataset's plans."""
        path = self.base / "preprocessed" / dataset / "nnUNetPlans.json"
        plans = read_json(path)
        plans["configurations"][name] = make(plans["configurations"]["3d_fullres"])
        write_json(plans, path)


def command_path(program: str) -> str:
    """The file of a command from this Python's environment or the search path; ends the process if there is none.

    Example:
        >>> Path(command_path("nnUNetv2_train")).name
        'nnUNetv2_train'
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(program, path=places) or sys.exit(f"{program} is not found in {places}")


def keep_settings(path: Path, args: argparse.Namespace, names: Iterable[str]) -> None:
    """Record the arguments that the steps in a folder depend on, and stop a later run that asks for different ones.

    Finished steps are skipped, so with other settings their results would be mistaken for new ones.
    """
    settings = {name: getattr(args, name) for name in names}
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(settings, path)
    elif (before := read_json(path)) != settings:
        sys.exit(f"{path}: this folder was begun with {before}, not with {settings}. Choose another folder.")


def small_configuration(parent: dict[str, Any]) -> dict[str, Any]:
    """A configuration that inherits from 3d_fullres: smaller patches, a network of 16 to 128 features.

    Mask, heatmap and offsets share the last layer: with 8 features they are learned at each other's expense
    (docs/experiments.md). One convolution instead of two at full resolution makes up for most of the added time.

    Example:
        >>> small_configuration({"spacing": [3, 1, 1], "architecture": {"arch_kwargs": {}}})["patch_size"]
        [16, 48, 48]
    """
    patch = [16 * max(1, round(PATCH_MM / mm / 16)) for mm in parent["spacing"]]
    # An axis with few, thick slices is halved only while more than 4 voxels are left.
    strides = [[1, 1, 1]] + [[2 if size >> stage > 4 else 1 for size in patch] for stage in range(N_STAGES - 1)]
    architecture = copy.deepcopy(parent["architecture"])
    architecture["arch_kwargs"].update(
        n_stages=N_STAGES,
        features_per_stage=[16 * 2**stage for stage in range(N_STAGES)],
        kernel_sizes=[[3, 3, 3]] * N_STAGES,
        strides=strides,
        n_conv_per_stage=[1] + [2] * (N_STAGES - 1),
        n_conv_per_stage_decoder=[2] * (N_STAGES - 2) + [1],
    )
    # The same number of voxels per step at any spacing: with fewer, the network may never start to learn the mask.
    batch_size = max(2, round(2 * PATCH_MM**3 / math.prod(patch)))
    return {"inherits_from": "3d_fullres", "patch_size": patch, "batch_size": batch_size, "architecture": architecture}
