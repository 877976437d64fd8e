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

import cc3d
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
HALF_WINDOW = 32
METHODS = {"instances": "center-offset", "connected_components": "CC"}


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
    for table in sorted((output / "comparison").glob("*.md")):
        print(table.read_text())
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
            "PYTHONUNBUFFERED": "1",
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
        self.run(
            f"nnUNetv2_conflunet_compare {names} --names {' '.join(METHODS.values())} -o {self.output / 'comparison'}"
        )
        (self.output / "evaluation.done").touch()

    def draw(self):
        case, slice_index, window = most_telling_view(self.raw / "instancesTs", self.prediction)
        panels = {
            "FLAIR": None,
            "reference": self.raw / "instancesTs" / case,
            **{title: self.prediction / folder / case for folder, title in METHODS.items()},
        }
        view = (*window, slice_index)
        image = load(self.raw / "imagesTs" / case.replace(".nii.gz", "_0000.nii.gz"))[view]
        reference = load(panels["reference"]).astype(int)[view]
        figure = Figure(figsize=(15, 4.2), layout="constrained")
        for axes, (title, path) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.imshow(image.T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(image, 99.8))
            if path is not None:
                ids = load(path).astype(int)[view]
                shown = coloured_as(reference, ids).T
                axes.imshow(shown, cmap="tab20", origin="lower", vmin=0, vmax=19, alpha=0.75, interpolation="nearest")
                title = f"{title}: {len(np.unique(ids[ids > 0]))} lesions"
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


def most_telling_view(references, prediction):
    """The case where most confluent lesions are gained over CC, the slice with most of them, and a window there."""
    gains = {}
    for path in sorted(references.glob("*.nii.gz")):
        reference = load(path).astype(int)
        found = [evaluate_case(load(prediction / m / path.name).astype(int), reference, (1, 1, 1)) for m in METHODS]
        gains[path.name] = found[0]["TP_CLU"] - found[1]["TP_CLU"]
    case = max(gains, key=gains.get)
    reference = load(references / case).astype(int)
    components = cc3d.connected_components((reference > 0).astype(np.uint8), connectivity=26)
    pairs = np.unique(np.stack([components[reference > 0], reference[reference > 0]]), axis=1)
    shared = np.flatnonzero(np.bincount(pairs[0]) > 1)
    confluent = np.where(np.isin(components, shared), reference, 0)
    slice_index = max(range(reference.shape[2]), key=lambda k: len(np.unique(confluent[..., k])))
    middle = np.median(np.argwhere(confluent[..., slice_index]), axis=0).astype(int)
    return case, slice_index, tuple(slice(max(m - HALF_WINDOW, 0), m + HALF_WINDOW) for m in middle)


def coloured_as(reference, ids):
    """Colour numbers of a map: a lesion has that of the reference lesion it overlaps most, if none had it before."""
    colours = np.full(ids.shape, np.nan)
    used = set()
    for i in np.unique(ids[ids > 0]):
        below = np.bincount(reference[ids == i])
        below[0] = 0
        colour = int(below.argmax()) if below.any() else 1000 + i
        if colour in used:
            colour = 1000 + i
        used.add(colour)
        colours[ids == i] = (colour * 7) % 20
    return colours


def load(path):
    return np.asarray(nibabel.load(path).dataobj)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar=("Z", "Y", "X"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
