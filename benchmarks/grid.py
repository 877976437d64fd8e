"""The paper's grid of alpha, beta and learning rate, one training per point, for array jobs of a scheduler.

    python benchmarks/grid.py run PROJECT DATASET_ID POINT --device cuda      # POINT from 0 to 29
    python benchmarks/grid.py table PROJECT DATASET_ID

For example `sbatch --array=0-29 --wrap 'python benchmarks/grid.py run PROJECT 1 $SLURM_ARRAY_TASK_ID'`. The project has
the layout of `benchmarks/table1.py`, is planned and preprocessed, and has been prepared with
`nnUNetv2_conflunet_prepare -d ID --paper_configuration`. Interrupted points resume; `table` shows the finished ones.
"""

import argparse
import itertools
import json
from pathlib import Path

import pandas as pd

from nnunetv2_conflunet.nnunet_plugin.project import Project, keep_settings

# Wynen et al., ISBI 2024, section on the loss.
ALPHAS = (500, 1000, 1200, 1500, 2000)
BETAS = (0.1, 0.3, 0.5)
LEARNING_RATES = (1e-4, 1e-5)
POINTS = list(itertools.product(ALPHAS, BETAS, LEARNING_RATES))
TRAINER = "nnUNetTrainerBenchmarkISBI2024"
METRICS = ("DSC", "Precision", "Recall", "F1", "PQ", "Recall_CLU")


def main():
    args = parse()
    project = Project(Path(args.project).resolve(), Path(__file__).resolve().parent / "trainers", {})
    raw = next((project.base / "raw").glob(f"Dataset{args.dataset:03d}_*"))
    if args.action == "run":
        run(project, raw, args)
    else:
        print(table(project))


def run(project, raw, args):
    """Train one point and evaluate its validation cases."""
    alpha, beta, learning_rate = POINTS[args.point]
    results = folder_of(project, args.point)
    fold = project.fold(raw.name, TRAINER, args.configuration, results=results)
    options = ("configuration", "num_epochs", "num_iterations_per_epoch")
    keep_settings(results / "settings.json", args, options)
    settings = {"alpha": alpha, "beta": beta, "initial_lr": learning_rate, "save_every": 10}
    for name in ("num_epochs", "num_iterations_per_epoch"):
        if getattr(args, name):
            settings[name] = getattr(args, name)
    project.train(fold, f"-device {args.device}", BENCHMARK_SETTINGS=json.dumps(settings))
    # Most references are training cases, without a prediction.
    project.run(
        f"nnUNetv2_conflunet_evaluate '{raw / 'instancesTr'}' '{fold / 'validation' / 'instances'}' "
        f"-o '{results / 'evaluation'}' --chill"
    )


def table(project):
    """Means over the validation patients for every finished point, best PQ first."""
    rows = []
    for number, point in enumerate(POINTS):
        cases = folder_of(project, number) / "evaluation" / "cases.csv"
        if cases.exists():
            means = pd.read_csv(cases)[list(METRICS)].mean()
            rows.append({"point": number, **dict(zip(("alpha", "beta", "learning rate"), point, strict=True)), **means})
    if not rows:
        return "No point has finished yet."
    return pd.DataFrame(rows).sort_values("PQ", ascending=False).to_string(index=False, float_format="{:.4g}".format)


def folder_of(project, number):
    alpha, beta, learning_rate = POINTS[number]
    return project.base / "grid" / f"alpha_{alpha}_beta_{beta}_lr_{learning_rate:g}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("project")
    parser.add_argument("dataset", type=int)
    parser.add_argument("point", type=int, nargs="?", choices=range(len(POINTS)), metavar="POINT")
    parser.add_argument("--configuration", default="3d_conflunet")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--num_epochs", type=int, help="default: the paper's 300")
    parser.add_argument("--num_iterations_per_epoch", type=int, help="default: nnU-Net's 250")
    args = parser.parse_args()
    if args.action == "run" and args.point is None:
        parser.error(f"run needs a POINT from 0 to {len(POINTS) - 1}")
    return args


if __name__ == "__main__":
    main()
