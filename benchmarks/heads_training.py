"""Trainings from the same start that differ in one thing: with and without the heads, or in their losses.

    python benchmarks/heads_training.py DATASET CONFIGURATION OUTPUT --arms semantic default alpha=200 --seeds 0 1 2

Each arm is a training of `--iterations` steps in this process, in epochs of `--every` steps. It writes one row of
figures per epoch to OUTPUT/<arm>_<seed>.csv: the parts of the training loss; the pseudo Dice, the center and the offset
error on validation patches that are the same for all arms; and the norm of each weighted term's gradient on the shared
trunk (`--gradients`). `--instances` also predicts the validation cases at the end and writes their lesion metrics by
center-offset and by CC to OUTPUT/<arm>_<seed>_instances.csv. Finished files are kept, so an interrupted run resumes.
`--plot` plots the existing files, `--table` prints their last rows.

An arm is `stock` (no heads' losses, nnU-Net's momentum), `semantic` (no heads' losses), `default`, or changes
attributes of the trainer: `alpha=200,beta=0.1`. More can be changed: `adamw=3e-3`, AdamW of this learning rate instead
of nnU-Net's SGD; `rate=5`, the heads' own channels learn that many times as fast; `offset_init=1`, the offset
channels are initialized like nnU-Net's own instead of at zero, times this factor; `scales=2`, the heads are summed over
the finest and two coarser outputs; `deep=2`, two coarser outputs have losses of the heads, too; `branch=8`, the heads
get their own 3x3x3 convolution with that many features next to the widened last one (`kernel=1`: 1x1x1); with it,
`trunk=0.3` is the fraction of the heads' gradient that reaches the layers before it; `cut=1`, lesions cut by the border
of the patch are left out of the heads' losses, `cut=2`, their center is that of their visible part.
"""

import argparse
import os
import random
import time
from pathlib import Path

os.environ.setdefault("nnUNet_compile", "f")

import numpy as np
import pandas as pd
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from matplotlib.figure import Figure
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from torch import nn
from torch.nn.functional import avg_pool3d, interpolate
from trainers.benchmark_trainers import compute_in_bfloat16

from nnunetv2_conflunet.evaluation import evaluate_case
from nnunetv2_conflunet.inference import ConfLUNetPredictor
from nnunetv2_conflunet.nnunet_plugin.project import keep_settings
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, remove_small_instances
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.augmentation import CENTERS
from nnunetv2_conflunet.trainers.loss import PARTS, ConfLUNetLoss, center_loss, offset_loss
from nnunetv2_conflunet.trainers.targets import HEATMAP, HEATMAP_AND_OFFSETS, HEATMAP_ONLY, OFFSETS, VALIDITY
from nnunetv2_conflunet.utilities.files import atomic_path, read_json

FIGURES = ("pseudo_dice", "val_center", "val_offsets")
# By center-offset: heatmap threshold, window in mm, prominence and consistency; the paper's first.
POINTS = (
    (0.1, 3.0, 0.0, 0.0),
    (0.1, 5.0, 0.0, 0.0),
    (0.1, 7.0, 0.0, 0.0),
    (0.1, 3.0, 0.05, 0.0),
    (0.1, 3.0, 0.1, 0.0),
    (0.1, 5.0, 0.05, 0.0),
    (0.3, 5.0, 0.05, 0.0),
    (0.3, 5.0, 0.05, 1.25),
)
METHODS = {
    **{
        f"{threshold} {window:g} mm {prominence} {consistency}": InstantiationSettings(
            heatmap_threshold=threshold, window_mm=window, min_prominence=prominence, min_consistency=consistency
        )
        for threshold, window, prominence, consistency in POINTS
    },
    "cc": InstantiationSettings(method="cc"),
}
N_HEADS = 4
METRICS = ("DSC", "Precision", "Recall", "F1", "PQ", "Recall_CLU")


def main():
    args = parse()
    output = Path(args.output).resolve()
    options = ("dataset", "configuration", "fold", "iterations", "every", "validation_batches", "bfloat16", "gradients")
    keep_settings(output / "settings.json", args, options)
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for arm in args.arms:
            run(arm, seed, args, output)
    if args.plot:
        plot(output, args.arms, args.seeds)
    if args.table:
        print(table(output, args.arms, args.seeds))


def run(arm, seed, args, output):
    """Train one arm and write its files, unless they exist."""
    path, instances = output / f"{arm}_{seed}.csv", output / f"{arm}_{seed}_instances.csv"
    if path.exists() and (instances.exists() or not args.instances):
        return
    # Arms differ in their plans.json, which nnU-Net writes to the results.
    os.environ["nnUNet_results"] = str(output / f"results_{arm}_{seed}")
    for source in (random.seed, np.random.seed, torch.manual_seed):
        source(seed)
    trainer = make_trainer(arm, args)
    write_table(pd.DataFrame(train(trainer, f"{arm} {seed}", args)), path)
    if args.instances:
        write_table(predict_validation_cases(trainer), instances)


def train(trainer, name, args):
    """Yield a row of figures every `args.every` steps, one epoch for the trainer's schedules."""
    os.environ["nnUNet_n_proc_DA"] = "0"
    trainer.on_train_start()
    if args.bfloat16:
        compute_in_bfloat16(trainer.network)
    validation = [next(trainer.dataloader_val) for _ in range(args.validation_batches)]
    start = time.process_time()
    for epoch in range(trainer.num_epochs):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        steps = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(args.every)]
        row = {"iteration": (epoch + 1) * args.every}
        row |= {f"train_{part}": np.mean([step[part] for step in steps]) for part in PARTS}
        row |= validate(trainer, validation)
        if args.gradients:
            trainer.network.train()
            row |= gradient_norms(trainer, next(trainer.dataloader_train))
        row["cpu_s"] = time.process_time() - start
        # Momentum and warm-up depend on it.
        trainer.logger.log("mean_fg_dice", row["pseudo_dice"], epoch)
        print(name, {key: round(float(value), 4) for key, value in row.items()}, flush=True)
        yield row


class TrainerOfAnArm(nnUNetTrainerConfLUNet):
    """The trainer, with choices beyond its own attributes."""

    adamw = 0.0
    rate = 1.0
    offset_init = 0.0
    scales = 0.0
    deep = 0.0
    branch = 0.0
    kernel = 3.0
    trunk = 1.0
    cut = 0.0

    def get_training_transforms(self, *args, **kwargs):
        transforms = super().get_training_transforms(*args, **kwargs)
        if self.cut:
            # Just before the targets are made.
            transforms.transforms.insert(-1, ForgetCutCenters(visible_part=self.cut == 2))
        return transforms

    def configure_optimizers(self):
        layers = self.network.decoder.seg_layers
        # Additional random weights must not change the following patches.
        with torch.random.fork_rng(devices=[]):
            if self.branch:
                layers[-1] = WithBranch(layers[-1], int(self.branch), int(self.kernel), self.trunk)
            if self.offset_init:
                weight = layers[-1].weight
                nn.init.normal_(weight[-N_HEADS + 1 :], std=self.offset_init * (2 / weight.shape[1]) ** 0.5)
        if self.scales:
            sum_heads_over_scales(self.network, int(self.scales))
        if self.deep:
            hand_over_coarser_heads(self.network, int(self.deep))
        if self.rate != 1:
            for parameter in layers[-1].parameters():
                parameter.register_hook(self.faster_heads)
        if not self.adamw:
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), self.adamw, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.adamw, self.num_epochs)

    def _build_loss(self):
        loss = super()._build_loss()
        if self.deep:
            loss.__class__ = LossAtAllScales
        return loss

    def faster_heads(self, gradient):
        return torch.cat([gradient[:-N_HEADS], self.rate * gradient[-N_HEADS:]])


def sum_heads_over_scales(network, n_coarser):
    """Heads as the sum of the finest output's and the interpolated ones of coarser outputs; needs deep supervision."""
    network.one_output = False
    network.decoder._forward_hooks.clear()

    def split(_, __, output):
        heads = output[0][:, -N_HEADS:]
        for coarse in output[1 : 1 + n_coarser]:
            heads = heads + interpolate(coarse[:, -N_HEADS:], heads.shape[2:], mode="trilinear", align_corners=False)
        scales = [scale[:, :-N_HEADS] for scale in output]
        return torch.cat([scales[0], heads], dim=1) if network.one_output else [*scales, heads]

    network.decoder.register_forward_hook(split)


def hand_over_coarser_heads(network, n_coarser):
    """In training the output also ends with the heads of coarser outputs."""

    def append(module, _, output):
        # The decoder's own hook has split the finest output already.
        return [*output, *module.coarser_heads] if module.training else None

    def keep(module, _, output):
        module.coarser_heads = [scale[:, -N_HEADS:] for scale in output[1 : 1 + n_coarser]]

    decoder = network.decoder
    split = list(decoder._forward_hooks.values())
    decoder._forward_hooks.clear()
    for hook in (keep, *split, append):
        decoder.register_forward_hook(hook)


class LossAtAllScales(ConfLUNetLoss):
    """The heads' losses at several scales, each with half the weight of the next finer one; the sum of weights is 1."""

    def weighted_sum(self, outputs, targets):
        loss, n = super().weighted_sum(outputs[: len(targets)], targets), len(targets)
        packed, weights = targets[-1].float(), 0.5 ** np.arange(1 + len(outputs) - n)
        of_heads = self.alpha * self.finest["center"] + self.beta * self.finest["offsets"]
        total = of_heads
        for weight, heads in zip(weights[1:], outputs[n:], strict=True):
            total = total + weight * self.of_coarser(heads.float(), packed)
        return loss + self.heads_weight * (total / weights.sum() - of_heads)

    def terms(self, outputs, targets):
        self.finest = super().terms(outputs[: len(targets)], targets)
        return self.finest

    def of_coarser(self, heads, packed):
        """Losses against block means: over labeled voxels for the heatmap, over lesion voxels for the offsets."""
        block = [a // b for a, b in zip(packed.shape[2:], heads.shape[2:], strict=True)]
        validity = packed[:, VALIDITY, None]
        labeled, lesion = ((validity >= lowest).float() for lowest in (HEATMAP_ONLY, HEATMAP_AND_OFFSETS))
        of_labeled, of_lesion = avg_pool3d(labeled, block), avg_pool3d(lesion, block)
        heatmap = avg_pool3d(packed[:, HEATMAP, None], block)
        offsets = avg_pool3d(packed[:, OFFSETS] * lesion, block) / of_lesion.clamp(min=1e-3)
        center = center_loss(heads[:, 0], heatmap[:, 0], of_labeled[:, 0] > 0.99, self.center_focus)
        return self.alpha * center + self.beta * offset_loss(heads[:, 1:], offsets, of_lesion[:, 0] >= 0.5)


class ForgetCutCenters(BasicTransform):
    """For lesions cut by the border of the patch: no center, or that of the visible part instead of the true one."""

    def __init__(self, visible_part):
        super().__init__()
        self.visible_part = visible_part

    def apply(self, data_dict, **_):
        instances = data_dict["segmentation"][1].numpy()
        centers = data_dict[CENTERS].without_cut(instances)
        if self.visible_part:
            seen = InstanceCenters.of(instances)
            cut = ~np.isin(seen.ids, seen.without_cut(instances).ids)
            ids = np.concatenate([centers.ids, seen.ids[cut]])
            centers = InstanceCenters(ids, np.concatenate([centers.voxels, seen.voxels[cut]]))
        data_dict[CENTERS] = centers
        return data_dict


class WithBranch(nn.Module):
    """The last convolution, to whose heads' channels a 3x3x3 convolution of their own adds; at first it adds 0."""

    def __init__(self, last, n_features, kernel, trunk):
        super().__init__()
        self.last = last
        self.trunk = trunk
        self.branch = nn.Sequential(
            nn.Conv3d(last.in_channels, n_features, kernel, padding=kernel // 2),
            nn.InstanceNorm3d(n_features, affine=True),
            nn.LeakyReLU(),
            nn.Conv3d(n_features, N_HEADS, 1),
        )
        for parameter in self.branch[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features):
        semantic = self.last(features)[:, :-N_HEADS]
        features = self.trunk * features + (1 - self.trunk) * features.detach()
        heads = self.last(features)[:, -N_HEADS:] + self.branch(features)
        return torch.cat([semantic, heads], dim=1)


def make_trainer(arm, args):
    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(args.dataset)
    without = {"alpha": 0.0, "beta": 0.0}
    named = {"stock": {**without, "early_momentum": 0.99}, "semantic": without, "default": {}}
    settings = {}
    for part in arm.split(","):
        name, _, value = part.partition("=")
        settings |= {name: float(value)} if value else named[name]
    trainer_class = type("nnUNetTrainerBenchmark", (TrainerOfAnArm,), settings)
    plans = {**read_json(folder / "nnUNetPlans.json"), "continue_training": False}
    trainer = trainer_class(
        plans, args.configuration, args.fold, read_json(folder / "dataset.json"), torch.device(args.device)
    )
    trainer.num_epochs = args.iterations // args.every
    trainer.disable_checkpointing = True
    return trainer


def validate(trainer, batches):
    trainer.network.eval()
    with torch.no_grad():
        copies = [{"data": batch["data"], "target": [scale.clone() for scale in batch["target"]]} for batch in batches]
        steps = [trainer.validation_step(batch) for batch in copies]
    tp, fp, fn = (np.sum([step[f"{count}_hard"] for step in steps]) for count in ("tp", "fp", "fn"))
    errors = {f"val_{part}": np.mean([step[part] for step in steps]) for part in PARTS}
    return {"pseudo_dice": 2 * tp / max(2 * tp + fp + fn, 1), **errors}


def gradient_norms(trainer, batch):
    """Norm of each weighted term's gradient on all parameters except those of the output convolutions."""
    trunk = [p for name, p in trainer.network.named_parameters() if ".seg_layers." not in name]
    targets = trainer.loss.unpacked([part.to(trainer.device) for part in batch["target"]])
    terms = trainer.loss.terms(trainer.network(batch["data"].to(trainer.device)), targets)
    weights = {"seg": 1.0, "center": trainer.alpha, "offsets": trainer.beta}
    norms = {}
    for part, term in terms.items():
        gradients = torch.autograd.grad(weights[part] * term, trunk, retain_graph=True, allow_unused=True)
        norms[f"gradient_{part}"] = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
    return norms


def predict_validation_cases(trainer):
    """Lesion metrics of the validation cases on the preprocessed grid, one row per case and method."""
    if trainer.scales:
        trainer.network.one_output = True
    else:
        trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = ConfLUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=trainer.device, allow_tqdm=False
    )
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
        type(trainer).__name__, None,
    )  # fmt: skip
    n_semantic = predictor.heads.n_semantic
    spacing_mm = trainer.configuration_manager.spacing
    _, dataset = trainer.get_tr_and_val_datasets()
    rows = []
    for case in dataset.identifiers:
        data, _, instances, _ = dataset.load_case(case)
        output = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(data))).float().numpy()
        foreground = output[:n_semantic].argmax(axis=0) > 0
        reference = remove_small_instances(np.asarray(instances, np.int32).reshape(foreground.shape), spacing_mm)
        for method, settings in METHODS.items():
            found = instantiate(
                foreground, spacing_mm, settings,
                heatmap=output[n_semantic], offsets_mm=output[n_semantic + 1 :],
            )  # fmt: skip
            metrics = evaluate_case(found.instances, reference, spacing_mm)
            rows.append({"case": case, "method": method, **{name: metrics[name] for name in METRICS}})
    trainer.set_deep_supervision_enabled(True)
    return pd.DataFrame(rows)


def write_table(rows, path):
    with atomic_path(path) as temporary:
        rows.to_csv(temporary, index=False)


def table(output, arms, seeds):
    """The last row of every arm, with lesion metrics if they exist: mean over seeds, in brackets lowest and highest."""
    lines = []
    for arm in arms:
        last = [pd.read_csv(path).iloc[-1] for path in existing(output, arm, seeds, "")]
        figures = {name: [row[name] for row in last] for name in ("iteration", *FIGURES)}
        for path in existing(output, arm, seeds, "_instances"):
            for method, rows in pd.read_csv(path).groupby("method"):
                for metric in METRICS:
                    figures.setdefault(f"{metric} {method}", []).append(rows[metric].mean())
        lines.append({"arm": arm, **{key: spread(values) for key, values in figures.items() if values}})
    return pd.DataFrame(lines).set_index("arm").T.to_string()


def spread(values):
    if len(set(values)) == 1:
        return f"{values[0]:.3g}"
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def existing(output, arm, seeds, what):
    paths = (output / f"{arm}_{seed}{what}.csv" for seed in seeds)
    return [path for path in paths if path.exists()]


def plot(output, arms, seeds):
    figure = Figure(figsize=(8, 10), layout="constrained")
    panels = figure.subplots(len(FIGURES), 1, sharex=True)
    for number, arm in enumerate(arms):
        for path in existing(output, arm, seeds, ""):
            rows = pd.read_csv(path)
            for axes, name in zip(panels, FIGURES, strict=True):
                axes.plot(rows["iteration"], rows[name], color=f"C{number}", label=arm)
                axes.set_ylabel(name)
    handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    panels[0].legend(handles.values(), handles.keys())
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
    parser.add_argument("--every", type=int, default=100, help="steps per epoch")
    parser.add_argument("--validation_batches", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="train in bfloat16 (always predicts in float32)")
    parser.add_argument("--gradients", action="store_true")
    parser.add_argument("--instances", action="store_true")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.iterations % args.every:
        parser.error(f"--iterations {args.iterations} is no multiple of --every {args.every}")
    return args


if __name__ == "__main__":
    main()
