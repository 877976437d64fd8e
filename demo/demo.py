"""From nothing to separated lesions with nnU-Net's own commands, as run by ``make demo``.

    python demo/demo.py OUTPUT [--seed 0] [--spacing 1 1 1]

Simulates a cohort, plans, preprocesses, trains a small configuration, predicts, computes connected components, ACLS and
watershed from the same segmentations, evaluates all four and draws a picture. Finished steps are skipped when the demo
is run again.
"""

import argparse
import shlex
import time
from pathlib import Path

import cc3d
import nibabel
import numpy as np

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.evaluation.report.slices import draw_slices, load_voxels
from nnunetv2_conflunet.nnunet_plugin.project import Project, keep_settings, small_configuration
from nnunetv2_conflunet.utilities.files import write_json

DATASET = "Dataset101_SimulatedLesions"
CONFIGURATION = "3d_demo"
TRAINER = "nnUNetTrainerConfLUNetDemo"
N_TRAINING, N_VALIDATION, N_TEST = 20, 8, 6
HALF_WINDOW = 32
OURS, CC = "instances", "connected_components"
METHODS = {OURS: "center-offset", "acls": "ACLS", "watershed": "watershed", CC: "CC"}


def main():
    args = parse()
    output = Path(args.output).resolve()
    keep_settings(output / "settings.json", args, ("seed", "spacing"))
    demo = Demo(output, args)
    start = time.time()
    for name, step, done in demo.steps():
        if done.exists():
            print(f"\n=== {name}: already done")
            continue
        print(f"\n=== {name}  ({time.time() - start:.0f} s so far)", flush=True)
        step()
    for table in sorted((output / "comparison").glob("*.md")):
        print(table.read_text())
    print(f"Picture: {output / 'demo.png'}\nThe demo took {time.time() - start:.0f} s.")


class Demo:
    """The steps, each with a file that marks it as finished."""

    def __init__(self, output, args):
        self.output = output
        self.args = args
        self.raw = output / "raw" / DATASET
        self.preprocessed = output / "preprocessed" / DATASET
        self.prediction = output / "prediction"
        self.project = Project(output, Path(__file__).resolve().parent / "trainers")
        self.fold = self.project.fold(DATASET, TRAINER, CONFIGURATION)
        self.run = self.project.run

    def steps(self):
        """Triples of name, function, and file that exists once the step has finished."""
        return (
            (f"Simulate {N_TRAINING + N_VALIDATION + N_TEST} patients", self.simulate, self.raw / "dataset.json"),
            ("Plan and preprocess", self.plan, self.preprocessed / "splits_final.json"),
            ("Train", self.train, self.fold / "validation" / "summary.json"),
            ("Predict", self.predict, self.output / "prediction.done"),
            ("Evaluate", self.evaluate, self.output / "evaluation.done"),
            ("Draw", self.draw, self.output / "demo.png"),
        )

    def simulate(self):
        spacing = " ".join(map(str, self.args.spacing))
        self.run(
            f"nnUNetv2_conflunet_simulate -d 101 --training_cases {N_TRAINING + N_VALIDATION} --test_cases {N_TEST} "
            f"--seed {self.args.seed} --spacing {spacing} -np 2 --overwrite"
        )

    def plan(self):
        self.run("nnUNetv2_plan_and_preprocess -d 101 -c 3d_fullres -npfp 1 -np 1 --verify_dataset_integrity")
        self.project.add_configuration(DATASET, CONFIGURATION, small_configuration)
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTr").glob("*.nii.gz"))
        split = {"train": cases[:N_TRAINING], "val": cases[N_TRAINING:]}
        write_json([split], self.preprocessed / "splits_final.json")

    def train(self):
        self.project.train(self.fold, "-device cpu --npz")

    def predict(self):
        images, prediction = quoted(self.raw / "imagesTs", self.prediction)
        self.run(
            f"nnUNetv2_predict -d 101 -c {CONFIGURATION} -f 0 -tr {TRAINER} -i {images} -o {prediction} "
            "-device cpu -npp 1 -nps 1 --disable_tta --continue_prediction --save_probabilities"
        )
        for method, folder in (("acls", "acls"), ("watershed", "watershed"), ("cc", CC)):
            (other,) = quoted(self.prediction / folder)
            self.run(f"nnUNetv2_conflunet_instantiate -i {prediction} -o {other} -m {method} -np 2")
        (self.output / "prediction.done").touch()

    def evaluate(self):
        for folder in METHODS:
            paths = quoted(self.raw / "instancesTs", self.prediction / folder, self.output / "evaluation" / folder)
            self.run("nnUNetv2_conflunet_evaluate {} {} -o {} -np 2".format(*paths))
        evaluations = " ".join(quoted(*(self.output / "evaluation" / folder for folder in METHODS)))
        (comparison,) = quoted(self.output / "comparison")
        self.run(f"nnUNetv2_conflunet_compare {evaluations} --names {' '.join(METHODS.values())} -o {comparison}")
        (self.output / "evaluation.done").touch()

    def draw(self):
        case, slice_index, window = most_telling_view(self.raw / "instancesTs", self.prediction)
        reference = load_voxels(self.raw / "instancesTs" / case).astype(int)
        found = {METHODS[folder]: load_voxels(self.prediction / folder / case).astype(int) for folder in (OURS, CC)}
        image = load_voxels(self.raw / "imagesTs" / case.replace(".nii.gz", "_0000.nii.gz"))
        maps = {"reference": reference, **found}
        draw_slices(self.output / "demo.png", image, reference, maps, [slice_index], window)


def most_telling_view(references, prediction):
    """The case with the largest gain of confluent lesions over CC, a slice with a divided component, and a window."""
    gains, maps = {}, {}
    for path in sorted(references.glob("*.nii.gz")):
        reference, spacing_mm = load_voxels(path).astype(int), nibabel.load(path).header.get_zooms()
        found = [load_voxels(prediction / folder / path.name).astype(int) for folder in (OURS, CC)]
        ours, cc = (evaluate_case(one, reference, spacing_mm)["TP_CLU"] for one in found)
        gains[path.name], maps[path.name] = ours - cc, (reference, *found)
    case = max(gains, key=gains.get)
    slice_index, component = best_divided_component(*maps[case])
    middle = np.median(np.argwhere(component), axis=0).astype(int)
    return case, slice_index, tuple(slice(max(m - HALF_WINDOW, 0), m + HALF_WINDOW) for m in middle)


def best_divided_component(reference, ours, cc):
    """The slice of the confluent component where `ours` finds the most lesions that `cc` misses, and its mask there."""
    components = cc3d.connected_components((reference > 0).astype(np.uint8), connectivity=26)
    pairs = np.unique(np.stack([components[reference > 0], reference[reference > 0]]), axis=1)
    best = (-np.inf, 0), None, None
    for z in range(reference.shape[2]):
        for component in np.intersect1d(components[..., z], np.flatnonzero(np.bincount(pairs[0]) > 1)):
            mask = components[..., z] == component
            gain = n_found(reference[..., z], ours[..., z], mask) - n_found(reference[..., z], cc[..., z], mask)
            best = max(best, ((gain, np.count_nonzero(mask)), z, mask), key=lambda entry: entry[0])
    return best[1:]


def n_found(reference, found, mask):
    """The number of reference lesions in a mask that have an IoU above 0.5 with a found lesion."""
    ious = (
        np.count_nonzero(lesion & other) / np.count_nonzero(lesion | other)
        for lesion in (reference == label for label in np.unique(reference[mask]))
        for other in (found == label for label in np.unique(found[mask & (found > 0)]))
    )
    return sum(iou > 0.5 for iou in ious)


def quoted(*paths):
    return [shlex.quote(str(path)) for path in paths]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar=("Z", "Y", "X"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
