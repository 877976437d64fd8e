"""From nothing to told-apart lesions, with nnU-Net's own commands: what ``make demo`` runs.

    python demo/demo.py OUTPUT [--seed 0] [--spacing 1 1 1]

Simulates a cohort, plans, preprocesses, trains a small configuration, predicts, makes connected components of the same
segmentations, evaluates both and draws a picture. Each step that has finished is skipped when the demo is run again.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.colors
import nibabel
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.nnunet_ext_path import nnunet_ext_path
from nnunetv2_conflunet.utilities.files import atomic_path, read_json, write_json

DATASET = "Dataset101_SimulatedLesions"
CONFIGURATION = "3d_demo"
TRAINER = "nnUNetTrainerConfLUNetDemo"
N_VALIDATION = 2
PATCH_MM = 48
METHODS = {"instances": "center-offset", "connected_components": "connected components"}


def main():
    args = parse()
    output = Path(args.output).resolve()
    demo = Demo(output, args)
    start = time.time()
    for name, step, done in demo.steps():
        if done.exists():
            print(f"\n=== {name}: done before")
            continue
        print(f"\n=== {name}  ({time.time() - start:.0f} s so far)", flush=True)
        step()
    print((output / "comparison" / "comparison.md").read_text() if (output / "comparison").is_dir() else "")
    print(f"Picture: {output / 'demo.png'}\nThe demo took {time.time() - start:.0f} s.")


class Demo:
    """The steps, each with the file that says that it has finished."""

    def __init__(self, output, args):
        self.output = output
        self.args = args
        self.raw = output / "raw" / DATASET
        self.preprocessed = output / "preprocessed" / DATASET
        self.fold = output / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{CONFIGURATION}" / "fold_0"
        self.prediction = output / "prediction"
        folders = {f"nnUNet_{i}": str(output / i) for i in ("raw", "preprocessed", "results")}
        own = Path(__file__).resolve().parent / "trainers"
        limits = {
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "1",
            "nnUNet_compile": "f",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.environment = {
            **os.environ,
            **limits,
            **folders,
            "nnUNet_extTrainer": os.pathsep.join([str(nnunet_ext_path()), str(own)]),
        }

    def steps(self):
        """(name, function, file that exists when it has finished)."""
        return (
            ("Simulate 20 training and 6 test patients", self.simulate, self.raw / "dataset.json"),
            ("Plan and preprocess", self.plan, self.preprocessed / "splits_final.json"),
            ("Train", self.train, self.fold / "validation" / "summary.json"),
            ("Predict", self.predict, self.output / "prediction.done"),
            ("Evaluate", self.evaluate, self.output / "evaluation.done"),
            ("Draw", self.draw, self.output / "demo.png"),
        )

    def run(self, command):
        """Run a command of this environment, showing it and what it prints."""
        print(f"$ {command}", flush=True)
        program, *arguments = shlex.split(command)
        subprocess.run([Path(sys.executable).with_name(program), *arguments], env=self.environment, check=True)

    def simulate(self):
        spacing = " ".join(map(str, self.args.spacing))
        self.run(f"nnUNetv2_conflunet_simulate -d 101 --seed {self.args.seed} --spacing {spacing} -np 2 --overwrite")

    def plan(self):
        self.run("nnUNetv2_plan_and_preprocess -d 101 -c 3d_fullres -npfp 1 -np 1 --verify_dataset_integrity")
        path = self.preprocessed / "nnUNetPlans.json"
        plans = read_json(path)
        plans["configurations"][CONFIGURATION] = small_configuration(plans["configurations"]["3d_fullres"])
        write_json(plans, path)
        cases = sorted(i.name.removesuffix(".nii.gz") for i in (self.raw / "labelsTr").glob("*.nii.gz"))
        split = {"train": cases[:-N_VALIDATION], "val": cases[-N_VALIDATION:]}
        write_json([split], self.preprocessed / "splits_final.json")

    def train(self):
        continued = "--c" if list(self.fold.glob("checkpoint_*.pth")) else ""
        self.run(f"nnUNetv2_train 101 {CONFIGURATION} 0 -tr {TRAINER} -device cpu {continued}")

    def predict(self):
        images = shlex.quote(str(self.raw / "imagesTs"))
        self.run(
            f"nnUNetv2_predict -d 101 -c {CONFIGURATION} -f 0 -tr {TRAINER} -i {images} -o {self.prediction} "
            "-device cpu -npp 1 -nps 1 --disable_tta --continue_prediction --save_probabilities"
        )
        cc = self.prediction / "connected_components"
        self.run(f"nnUNetv2_conflunet_instantiate -i {self.prediction} -o {cc} -m cc -np 2")
        (self.output / "prediction.done").touch()

    def evaluate(self):
        for folder in METHODS:
            self.run(
                f"nnUNetv2_conflunet_evaluate {self.raw / 'instancesTs'} {self.prediction / folder} "
                f"-o {self.output / 'evaluation' / folder} -np 2"
            )
        names = " ".join(str(self.output / "evaluation" / folder) for folder in METHODS)
        self.run(f"nnUNetv2_conflunet_compare {names} -o {self.output / 'comparison'}")
        (self.output / "evaluation.done").touch()

    def draw(self):
        case, slice_index = most_telling_slice(self.raw / "instancesTs", self.prediction)
        panels = {
            "FLAIR": None,
            "reference": self.raw / "instancesTs" / case,
            **{title: self.prediction / folder / case for folder, title in METHODS.items()},
        }
        image = load(self.raw / "imagesTs" / case.replace(".nii.gz", "_0000.nii.gz"))[..., slice_index]
        figure = Figure(figsize=(14, 4.2), layout="constrained")
        for axes, (title, path) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.imshow(image.T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(image, 99.8))
            if path is not None:
                ids = load(path).astype(int)[..., slice_index]
                shown = np.where(ids > 0, (ids * 7) % 20, np.nan)
                axes.imshow(
                    shown.T, cmap=colours(), origin="lower", vmin=0, vmax=19, alpha=0.75, interpolation="nearest"
                )
                title = f"{title}: {len(np.unique(ids)) - 1} lesions in this slice"
            axes.set_title(title)
            axes.axis("off")
        with atomic_path(self.output / "demo.png") as temporary:
            figure.savefig(temporary, dpi=110)


def small_configuration(parent):
    """A configuration that inherits from 3d_fullres: smaller patches, a network of 8 to 64 features."""
    patch = [16 * max(1, round(PATCH_MM / spacing / 16)) for spacing in parent["spacing"]]
    n_stages = 4
    # An axis of thick slices is halved only while it is not shorter than the others.
    strides = [[1, 1, 1]] + [[2 if patch[i] >> k > 4 else 1 for i in range(3)] for k in range(n_stages - 1)]
    architecture = json.loads(json.dumps(parent["architecture"]))
    architecture["arch_kwargs"].update(
        n_stages=n_stages,
        features_per_stage=[8 * 2**i for i in range(n_stages)],
        kernel_sizes=[[3, 3, 3]] * n_stages,
        strides=strides,
        n_conv_per_stage=[2] * n_stages,
        n_conv_per_stage_decoder=[2] * (n_stages - 1),
    )
    return {"inherits_from": "3d_fullres", "patch_size": patch, "batch_size": 2, "architecture": architecture}


def most_telling_slice(references, prediction):
    """The case whose confluent lesions gain most over connected components, and its slice with most lesions."""
    gains = {}
    for path in sorted(references.glob("*.nii.gz")):
        found = [
            evaluate_case(load(prediction / m / path.name).astype(int), load(path).astype(int), (1, 1, 1))
            for m in METHODS
        ]
        gains[path.name] = found[0]["TP_CLU"] - found[1]["TP_CLU"]
    case = max(gains, key=gains.get)
    ids = load(references / case).astype(int)
    return case, max(range(ids.shape[2]), key=lambda k: len(np.unique(ids[..., k])))


def load(path):
    return np.asarray(nibabel.load(path).dataobj)


def colours():
    return matplotlib.colors.ListedColormap(matplotlib.colormaps["tab20"].colors)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar=("Z", "Y", "X"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
