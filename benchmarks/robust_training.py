"""Short trainings on cohorts that are difficult for the losses: does every part stay finite and fall?

    python benchmarks/robust_training.py OUTPUT [--cohorts few_confluent thick_slices] [--epochs 4] [--iterations 50]

Simulates each cohort, plans, preprocesses and trains ConfLUNet in a small configuration with nnU-Net's commands, and
prints the parts of the training loss of the first and the last epoch from nnU-Net's log. The exit status is 1 if any
of them is NaN or infinite. Finished steps are skipped when the command is run again.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from nnunetv2_conflunet.nnunet_plugin.project import Project, keep_settings, small_configuration
from nnunetv2_conflunet.trainers.loss import PARTS
from nnunetv2_conflunet.trainers.progress import log_key

TRAINER, CONFIGURATION, DATASET = "nnUNetTrainerBenchmarkConfLUNet", "3d_small", "Dataset101_SimulatedLesions"
COHORTS = {
    "few_confluent": "--confluent_share 0.01",
    "most_confluent": "--confluent_share 0.8",
    "a_third_without_lesions": "--lesion_free_share 0.34",
    "300_lesions_a_patient": "--lesions 300 --dispersion 50 --whole_brain",
    "thick_slices": "--spacing 3 1 1",
}


def main():
    args = parse()
    keep_settings(Path(args.output).resolve() / "settings.json", args, ("epochs", "iterations"))
    rows = [row(name, args) for name in args.cohorts]
    print("\n| cohort | " + " | ".join(f"{part}, first epoch | last" for part in PARTS) + " |")
    print("| --- " * (2 * len(PARTS) + 1) + "|")
    for name, values in rows:
        print(f"| {name} | " + " | ".join(f"{value:.4f}" for value in values) + " |")
    broken = [name for name, values in rows if not np.isfinite(values).all()]
    if broken:
        sys.exit(f"Not finite: {', '.join(broken)}")


def row(name, args):
    """The parts of the loss, each in the first and the last epoch."""
    base = Path(args.output).resolve() / name
    project = Project(base, Path(__file__).resolve().parent / "trainers")
    fold = project.fold(DATASET, TRAINER, CONFIGURATION, "all")
    if not (base / "preprocessed" / "planned").exists():
        project.run(
            f"nnUNetv2_conflunet_simulate -d 101 --training_cases 6 --test_cases 0 -np 2 --overwrite {COHORTS[name]}"
        )
        project.run("nnUNetv2_plan_and_preprocess -d 101 -c 3d_fullres -npfp 1 -np 1")
        project.add_configuration(DATASET, CONFIGURATION, small_configuration)
        (base / "preprocessed" / "planned").touch()
    if not (fold / "checkpoint_final.pth").exists():
        settings = {"num_epochs": args.epochs, "num_iterations_per_epoch": args.iterations}
        settings["num_val_iterations_per_epoch"] = 5
        project.train(fold, "-device cpu", BENCHMARK_SETTINGS=json.dumps(settings))
    log = torch.load(fold / "checkpoint_final.pth", weights_only=False)["logging"]
    return name, [log[log_key("train", part)][epoch] for part in PARTS for epoch in (0, -1)]


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--cohorts", nargs="+", choices=list(COHORTS), default=list(COHORTS))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
