"""Whether the heads help the mask or harm it: trainings from the same start, with and without them.

    python benchmarks/heads_training.py DATASET CONFIGURATION OUTPUT --arms semantic default alpha=200 --seeds 0 1 2

Each arm is a training of `--iterations` steps in this process, with nnU-Net's optimizer and its schedule over that
many steps. It writes one row of figures every `--every` steps to OUTPUT/<arm>_<seed>.csv: the parts of the training
loss since the last row; the pseudo Dice, the center and the offset error on validation patches that are the same for
all arms; and the norm of each weighted term's gradient on the shared trunk (`--gradients`). Finished files are kept,
so that a broken run goes on where it was. `--plot` draws what is there.

An arm is `semantic` (no heads' losses), `default`, or changes attributes of the trainer: `alpha=200,beta=0.1`.
"""

import argparse
import csv
import os
import random
import time
from pathlib import Path

os.environ.setdefault("nnUNet_compile", "f")

import numpy as np
import torch
from matplotlib.figure import Figure
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.loss import PARTS
from nnunetv2_conflunet.utilities.files import atomic_path, read_json

FIGURES = ("pseudo_dice", "val_center", "val_offsets")


def main():
    args = parse()
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for arm in args.arms:
            path = output / f"{arm}_{seed}.csv"
            if not path.exists():
                write_rows(list(train(arm, seed, args)), path)
    if args.plot:
        plot(output, args.arms, args.seeds)


def train(arm, seed, args):
    """Yield a row of figures every `args.every` steps."""
    for source in (random.seed, np.random.seed, torch.manual_seed):
        source(seed)
    trainer = make_trainer(arm, args)
    os.environ["nnUNet_n_proc_DA"] = "0"
    trainer.on_train_start()
    validation = [next(trainer.dataloader_val) for _ in range(args.validation_batches)]
    start, steps = time.process_time(), []
    for iteration in range(args.iterations):
        trainer.network.train()
        # nnU-Net's schedule goes by epochs; here one step is one.
        trainer.lr_scheduler.step(iteration)
        trainer.current_epoch = iteration
        trainer.loss.heads_weight = trainer.heads_weight()
        norms = {}
        if args.gradients and (iteration + 1) % args.every == 0:
            norms = gradient_norms(trainer, next(trainer.dataloader_train))
        steps.append(trainer.train_step(next(trainer.dataloader_train)))
        if (iteration + 1) % args.every == 0:
            means = {f"train_{part}": np.mean([step[part] for step in steps]) for part in PARTS}
            row = {"iteration": iteration + 1, **means, **validate(trainer, validation), **norms}
            row["cpu_s"] = time.process_time() - start
            print(arm, seed, {key: round(float(value), 4) for key, value in row.items()}, flush=True)
            yield row
            steps = []


def make_trainer(arm, args):
    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(args.dataset)
    settings = {"semantic": {"alpha": 0.0, "beta": 0.0}, "default": {}}.get(arm)
    if settings is None:
        settings = {key: float(value) for key, value in (i.split("=") for i in arm.split(","))}
    trainer_class = type("nnUNetTrainerBenchmark", (nnUNetTrainerConfLUNet,), settings)
    plans = {**read_json(folder / "nnUNetPlans.json"), "continue_training": False}
    trainer = trainer_class(
        plans, args.configuration, args.fold, read_json(folder / "dataset.json"), torch.device("cpu")
    )
    trainer.num_epochs = args.iterations
    trainer.disable_checkpointing = True
    return trainer


def validate(trainer, batches):
    trainer.network.eval()
    with torch.no_grad():
        steps = [
            trainer.validation_step({"data": b["data"], "target": [t.clone() for t in b["target"]]}) for b in batches
        ]
    tp, fp, fn = (np.sum([step[f"{i}_hard"] for step in steps]) for i in ("tp", "fp", "fn"))
    errors = {f"val_{part}": np.mean([step[part] for step in steps]) for part in PARTS}
    return {"pseudo_dice": 2 * tp / max(2 * tp + fp + fn, 1), **errors}


def gradient_norms(trainer, batch):
    """Norm of the gradient of each weighted term on every parameter but those of the output convolutions."""
    trunk = [p for name, p in trainer.network.named_parameters() if ".seg_layers." not in name]
    terms = trainer.loss.terms(trainer.network(batch["data"]), batch["target"])
    weights = {"seg": 1.0, "center": trainer.alpha, "offsets": trainer.beta}
    norms = {}
    for part, term in terms.items():
        gradients = torch.autograd.grad(weights[part] * term, trunk, retain_graph=True, allow_unused=True)
        norms[f"gradient_{part}"] = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
    return norms


def write_rows(rows, path):
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def plot(output, arms, seeds):
    figure = Figure(figsize=(8, 10), layout="constrained")
    panels = figure.subplots(len(FIGURES), 1, sharex=True)
    for number, arm in enumerate(arms):
        for seed in seeds:
            path = output / f"{arm}_{seed}.csv"
            if path.exists():
                rows = np.genfromtxt(path, delimiter=",", names=True)
                for axes, name in zip(panels, FIGURES, strict=True):
                    axes.plot(
                        rows["iteration"], rows[name], color=f"C{number}", label=arm if seed == seeds[0] else None
                    )
                    axes.set_ylabel(name)
    panels[0].legend()
    panels[-1].set_xlabel("iteration")
    figure.savefig(output / "heads_training.png", dpi=120)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("output")
    parser.add_argument("--arms", nargs="+", default=["semantic", "default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--fold", type=lambda fold: fold if fold == "all" else int(fold), default=0)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--validation_batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--plot", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
