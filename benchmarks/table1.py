"""The paper's experiment (Table 1 of Wynen et al., ISBI 2024) on any dataset with instances, with nnU-Net's commands.

    python benchmarks/table1.py PROJECT DATASET_ID --seeds 0 1 2 --device cuda
    python benchmarks/table1.py PROJECT DATASET_ID --small --device cpu

PROJECT/raw/DatasetNNN_Name is a raw dataset with imagesTr, labelsTr, instancesTr, imagesTs and instancesTs, such as
`benchmarks/open_ms_cohort.py` writes. For every seed three networks are trained on the same split: nnU-Net's semantic
one (with ConfLUNet's initial momentum), ConfLUNet with nnU-Net's recipe, and ConfLUNet with the paper's. CC and ACLS
are applied to the first; in the paper they use a network with the paper's recipe. All are evaluated on imagesTs and
compared patient by patient. `--small` uses patches of 48 mm and networks of 16 to 128 features, for two cores. Finished
steps are skipped when the command is run again.
"""

import argparse
import json
from pathlib import Path

import cc3d
import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.report.comparison import PAPER_METRICS
from nnunetv2_conflunet.evaluation.report.slices import draw_slices, load_voxels
from nnunetv2_conflunet.nnunet_plugin.project import LIMITS, Project, keep_settings, small_configuration
from nnunetv2_conflunet.preprocessing.paper_configuration import NAME as PAPER_CONFIGURATION
from nnunetv2_conflunet.preprocessing.paper_configuration import paper_configuration
from nnunetv2_conflunet.utilities.files import atomic_path

SMALL, SMALL_PAPER = "3d_small", "3d_conflunet_small"
# Trainers, and methods by their name in the table: trainer, and folder of the instances in its prediction.
SEMANTIC, CONFLUNET, PAPER = (f"nnUNetTrainerBenchmark{name}" for name in ("Semantic", "ConfLUNet", "ISBI2024"))
METHODS = {
    "CC": (SEMANTIC, "cc"),
    "ACLS": (SEMANTIC, "acls"),
    "ConfLUNet": (CONFLUNET, "instances"),
    "ConfLUNet (paper)": (PAPER, "instances"),
}


def main():
    experiment = Experiment(parse())
    experiment.prepare()
    for seed in experiment.args.seeds:
        experiment.run_seed(seed)
    experiment.summarize()


class Experiment:
    """Folders and commands of the experiment."""

    def __init__(self, args):
        self.args = args
        self.methods = {name: METHODS[name] for name in args.methods}
        limits = LIMITS if args.device == "cpu" else {}
        self.project = Project(Path(args.project).resolve(), Path(__file__).resolve().parent / "trainers", limits)
        self.raw = next((self.project.base / "raw").glob(f"Dataset{args.dataset:03d}_*"))
        self.preprocessed = self.project.base / "preprocessed" / self.raw.name
        configurations = (SMALL, SMALL_PAPER) if args.small else (args.configuration, PAPER_CONFIGURATION)
        options = ("dataset", "configuration", "small", "epochs", "iterations", "beta", "bfloat16")
        keep_settings(self.project.base / "table1.json", args, options)
        self.configuration = {SEMANTIC: configurations[0], CONFLUNET: configurations[0], PAPER: configurations[1]}

    def prepare(self):
        """Plan, preprocess and add the configurations."""
        # The small and the paper's configurations use the data of 3d_fullres.
        preprocessed = ["3d_fullres"] if self.args.small else sorted({"3d_fullres", self.args.configuration})
        if not (self.preprocessed / "planned").exists():
            self.project.run(
                f"nnUNetv2_plan_and_preprocess -d {self.args.dataset} -c {' '.join(preprocessed)} "
                f"-npfp {self.args.np} -np {' '.join([str(self.args.np)] * len(preprocessed))} "
                "--verify_dataset_integrity"
            )
            (self.preprocessed / "planned").touch()
        self.project.run(f"nnUNetv2_conflunet_prepare -d {self.args.dataset} --paper_configuration -np {self.args.np}")
        if self.args.small:
            for name, make in ((SMALL, small_configuration), (SMALL_PAPER, small_paper_configuration)):
                self.project.add_configuration(self.raw.name, name, make)

    def run_seed(self, seed):
        """Train, predict, instantiate, evaluate and compare with one seed."""
        folder = self.project.base / f"seed_{seed}"
        for trainer in dict.fromkeys(trainer for trainer, _ in self.methods.values()):
            self.train(trainer, seed, folder / "results")
            self.predict(trainer, folder, "imagesTs")
            if (self.raw / "imagesReal").is_dir():
                self.predict(trainer, folder, "imagesReal")
        for name, (trainer, instances) in self.methods.items():
            output = folder / "evaluation" / name
            # The last file that the evaluation writes.
            if not (output / "lesions.csv").exists():
                self.project.run(
                    f"nnUNetv2_conflunet_evaluate '{self.raw / 'instancesTs'}' "
                    f"'{folder / 'imagesTs' / trainer / instances}' -o '{output}' -np {self.args.np}"
                )
        evaluations = " ".join(f"'{folder / 'evaluation' / name}'" for name in self.methods)
        self.project.run(f"nnUNetv2_conflunet_compare {evaluations} -o '{folder / 'comparison'}'")
        for label in sorted((self.raw / "labelsReal").glob("*.nii.gz")):
            self.draw_real_case(folder, label)

    def train(self, trainer, seed, results):
        settings = {"seed": seed, "save_every": 1 if self.args.small else 50}
        if self.args.epochs:
            settings["num_epochs"] = self.args.epochs
        if self.args.iterations:
            settings |= {"num_iterations_per_epoch": self.args.iterations, "num_val_iterations_per_epoch": 10}
        if self.args.bfloat16:
            settings["bfloat16"] = True
        if trainer == CONFLUNET and self.args.beta is not None:
            settings["beta"] = self.args.beta
        fold = self.project.fold(self.raw.name, trainer, self.configuration[trainer], results=results)
        options = f"--npz -device {self.args.device}"
        self.project.train(fold, options, BENCHMARK_SETTINGS=json.dumps(settings))

    def predict(self, trainer, folder, images):
        """Predict a folder of the raw dataset; for the semantic network, also make instances by CC and ACLS."""
        output = folder / images / trainer
        if (output / "done").exists():
            return
        self.project.run(
            f"nnUNetv2_predict -d {self.args.dataset} -c {self.configuration[trainer]} -f 0 -tr {trainer} "
            f"-i '{self.raw / images}' -o '{output}' -device {self.args.device} -npp 1 -nps 1 --disable_tta "
            "--continue_prediction --save_probabilities",
            nnUNet_results=str(folder / "results"),
        )
        if trainer == SEMANTIC:
            for method in ("cc", "acls"):
                self.project.run(
                    f"nnUNetv2_conflunet_instantiate -i '{output}' -o '{output / method}' -m {method} "
                    f"-np {self.args.np}"
                )
        (output / "done").touch()

    def draw_real_case(self, folder, label):
        """Draw three slices of a case without reference instances, colored by the components of its label."""
        mask = load_voxels(label) > 0
        components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
        found = {name: load_voxels(folder / "imagesReal" / trainer / instances / label.name).astype(int)
                 for name, (trainer, instances) in self.methods.items()}  # fmt: skip
        slices = np.percentile(np.nonzero(mask)[2], (25, 50, 75)).astype(int)
        image = load_voxels(self.raw / "imagesReal" / label.name.replace(".nii.gz", "_0000.nii.gz"))
        maps = {"components of the label": components, **found}
        draw_slices(folder / f"{label.name.removesuffix('.nii.gz')}.png", image, components, maps, slices)

    def summarize(self):
        """Write and print the table of all seeds, and the counts in the real case."""
        base = self.project.base
        seeds = [base / f"seed_{seed}" for seed in self.args.seeds]
        lines = [table_of_seeds({name: [seed / "evaluation" / name for seed in seeds] for name in self.methods})]
        if (self.raw / "imagesReal").is_dir():
            folders = {
                name: [seed / "imagesReal" / trainer / instances for seed in seeds]
                for name, (trainer, instances) in self.methods.items()
            }
            lines.append(table_of_counts(folders))
        text = "\n\n".join(lines) + "\n"
        with atomic_path(base / "table1.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"\n{text}")


def small_paper_configuration(parent):
    """The paper's configuration with patch size, features and strides of the small one."""
    small, paper = small_configuration(parent), paper_configuration()
    paper["patch_size"] = small["patch_size"]
    for key in ("features_per_stage", "strides"):
        paper["architecture"]["arch_kwargs"][key] = small["architecture"]["arch_kwargs"][key]
    return paper


def table_of_seeds(evaluations):
    """Mean and standard deviation over patients of each patient's mean over seeds; in brackets the range over seeds.

    As in the comparison, each metric is taken over the patients for whom every method and seed define it.
    """
    metrics = list(PAPER_METRICS)
    cases = {
        (name, seed): pd.read_csv(folder / "cases.csv").set_index("case")[metrics].sort_index()
        for name, folders in evaluations.items()
        for seed, folder in enumerate(folders)
    }
    defined = np.logical_and.reduce([table.notna() for table in cases.values()])
    n_seeds = len(next(iter(evaluations.values())))
    rows = ["| method | " + " | ".join(metrics) + " |", "| --- " * (len(metrics) + 1) + "|"]
    for name in evaluations:
        tables = [cases[name, seed] for seed in range(n_seeds)]
        cells = [
            cell([table.loc[defined[:, column], metric] for table in tables], metric)
            for column, metric in enumerate(metrics)
        ]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    rows.append("| patients | " + " | ".join(str(n) for n in defined.sum(axis=0)) + " |")
    rows.append(f"\n{n_seeds} seeds; in %, DiC in lesions; in brackets the lowest and highest mean of any seed.")
    return "\n".join(rows)


def cell(of_seeds, metric):
    scale = 1 if metric == "DiC" else 100
    patients = scale * np.mean(of_seeds, axis=0)
    means = [scale * one.mean() for one in of_seeds]
    spread = f" ({min(means):.1f} to {max(means):.1f})" if len(means) > 1 else ""
    return f"{patients.mean():.1f} ± {patients.std(ddof=1):.1f}{spread}"


def table_of_counts(folders):
    """Lesions and confluent lesions in the real case, one number per seed."""
    rows = ["| method | lesions in the real case | confluent |", "| --- | --- | --- |"]
    for name, of_seeds in folders.items():
        tables = [pd.concat(pd.read_csv(path) for path in sorted(folder.glob("*.csv"))) for folder in of_seeds]
        lesions = ", ".join(str(len(table)) for table in tables)
        confluent = ", ".join(str(int(table.confluent.sum())) for table in tables)
        rows.append(f"| {name} | {lesions} | {confluent} |")
    return "\n".join(rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project")
    parser.add_argument("dataset", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--configuration", default="3d_fullres", help="of the first two networks")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--epochs", type=int, help="default: each trainer's own; 10 with --small")
    parser.add_argument("--iterations", type=int, help="per epoch; default: nnU-Net's 250; 100 with --small")
    parser.add_argument("--beta", type=float, help="weight of ConfLUNet's offset loss; default: the trainer's")
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16, for processors that have it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("-np", type=int, default=2)
    args = parser.parse_args()
    if len(args.methods) < 2:
        parser.error("--methods needs at least two methods to compare")
    if args.small:
        args.epochs, args.iterations = args.epochs or 10, args.iterations or 100
    return args


if __name__ == "__main__":
    main()
