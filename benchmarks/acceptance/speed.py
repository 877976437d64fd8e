"""Training steps of nnU-Net's trainer and of ours on the same plans and data, with and without torch.compile.

    python benchmarks/acceptance/speed.py RESULT.json --dataset 111 --configuration 3d_fullres --iterations 100

Part of `benchmarks/gpu_acceptance.py`; nnU-Net's folders come from its environment variables. Steps after a warm-up, in
the trainers' own precision: with batches ready in memory, which shows the time on the device, and with nnU-Net's own
loader, whose workers share the processor. With the loader, the trainers take turns, several times.
"""

import argparse
import itertools
import os
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from torch._dynamo import explain

from nnunetv2_conflunet.networks import unwrapped
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
from nnunetv2_conflunet.trainers.loss import PARTS
from nnunetv2_conflunet.utilities.files import read_json, write_json

KINDS = {"stock": nnUNetTrainer, "ours": nnUNetTrainerConfLUNet}
WARM_UP = 10
# Batches kept ready in memory; the seconds that new loaders need to fill their queues, and those that the loader of the
# trainer before needs to fill its queues again.
N_READY, FILL_SECONDS, REFILL_SECONDS = 4, 15, 4
# Beyond the offsets of any lesion: half the diagonal of a patch of 128 mm is 111 mm.
FAR_MM = 60.0
FAR_STEPS = 60


def main():
    args = parse()
    torch.backends.cudnn.benchmark = True
    wait = time.sleep if args.device == "cuda" else lambda seconds: None
    result, trainers, ready = {}, {}, {}
    for kind, trainer_class in KINDS.items():
        trainers[kind] = make_trainer(trainer_class, args, compiled=False)
        trainers[kind].on_train_start()
    wait(FILL_SECONDS)
    for kind, trainer_class in KINDS.items():
        loader = trainers[kind].dataloader_train
        ready[kind] = [next(loader) for _ in range(N_READY)]
        result[kind] = ready_steps(trainers[kind], ready[kind], args.iterations)
        if args.compile:
            name = f"{kind}, compiled"
            trainers[name] = make_trainer(trainer_class, args, compiled=True)
            trainers[name].initialize()
            trainers[name].dataloader_train = loader
            result[name] = ready_steps(trainers[name], ready[kind], args.iterations)
        write_json(result, args.result)
    for _ in range(args.rounds):
        for name, trainer in trainers.items():
            wait(REFILL_SECONDS)
            result[name].setdefault("rounds", []).append(steps(trainer, trainer.dataloader_train, args.iterations))
    for run in result.values():
        run["finite"] = all(one["finite"] for one in (run, *run["rounds"]))
        for name in ("iteration_s", "loader_share"):
            run[name] = float(np.mean([one[name] for one in run["rounds"]]))
    write_json(result, args.result)
    for kind in KINDS:
        result[kind]["graphs"], result[kind]["graph_breaks"] = graphs(trainers[kind], ready[kind][0])
    result["far offsets"] = far_offsets(trainers["ours"], ready["ours"][0])
    write_json(result, args.result)
    for trainer in trainers.values():
        trainer.dataloader_train = trainer.dataloader_val = None


def make_trainer(trainer_class, args, compiled):
    # nnU-Net's trainer reads it when it builds its network.
    os.environ["nnUNet_compile"] = "t" if compiled else "f"
    torch.manual_seed(0)
    folder = Path(nnUNet_preprocessed) / maybe_convert_to_dataset_name(args.dataset)
    plans = {**read_json(folder / "nnUNetPlans.json"), "continue_training": False}
    content = read_json(folder / "dataset.json")
    return trainer_class(plans, args.configuration, 0, content, torch.device(args.device))


def begin_epoch(trainer):
    trainer.on_train_epoch_start()
    if isinstance(trainer, nnUNetTrainerConfLUNet):
        # After the warm-up, as in most of a training.
        trainer.loss.heads_weight = 1.0


def ready_steps(trainer, ready, n):
    """Steps with batches in memory; memory above that of the trainers made before."""
    begin_epoch(trainer)
    networks = [parameter for parameter in trainer.network.parameters() if parameter.is_cuda]
    others_gib = 0.0
    if networks:
        others_gib = (torch.cuda.memory_allocated() - sum(parameter.nbytes for parameter in networks)) / 2**30
    result = steps(trainer, itertools.cycle(ready), n)
    if networks:
        result["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30 - others_gib
    result["batch_mib"] = sum(part.nbytes for part in (ready[0]["data"], *ready[0]["target"])) / 2**20
    return result


def steps(trainer, loader, n):
    """Seconds per step, the fraction spent waiting for the loader, and whether all losses were finite."""
    waits, works, losses = [], [], []
    for step in range(WARM_UP + n):
        if step == WARM_UP and trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        batch = next(loader)
        loaded = time.perf_counter()
        # Ends with the loss on the CPU, so the device has finished.
        losses.append(trainer.train_step(batch))
        waits.append(loaded - start)
        works.append(time.perf_counter() - loaded)
    result = {
        "first_step_s": works[0],
        "step_s": float(np.median(works[WARM_UP:])),
        "iteration_s": float(np.mean(waits[WARM_UP:]) + np.mean(works[WARM_UP:])),
        "loader_share": float(np.sum(waits[WARM_UP:]) / (np.sum(waits[WARM_UP:]) + np.sum(works[WARM_UP:]))),
        "finite": all(np.isfinite(value).all() for step in losses for value in step.values()),
        "loss": [float(np.mean([step["loss"] for step in part])) for part in (losses[:10], losses[-10:])],
    }
    if trainer.device.type == "cuda":
        result["gradient_scale"] = trainer.grad_scaler.get_scale()
    return result


def graphs(trainer, batch):
    """The number of graphs into which torch.compile splits the network, and of graph breaks."""
    explained = explain(unwrapped(trainer.network))(batch["data"].to(trainer.device))
    torch.compiler.reset()
    return explained.graph_count, explained.graph_break_count


def far_offsets(trainer, batch):
    """Steps toward centers moved by 60 mm along each axis, in the trainer's own precision."""
    centers = batch["target"][-1]
    spacing = trainer.configuration_manager.spacing[-centers.shape[-1] :]
    centers += torch.tensor([FAR_MM / mm * (-1) ** axis for axis, mm in enumerate(spacing)])
    for group in trainer.optimizer.param_groups:
        group["momentum"] = 0.9
    losses = [trainer.train_step(batch) for _ in range(FAR_STEPS)]
    with torch.no_grad(), torch.autocast(trainer.device.type, enabled=trainer.device.type == "cuda"):
        heads = trainer.network(batch["data"].to(trainer.device))[-1]
    return {
        "dtype": str(heads.dtype),
        "finite": all(np.isfinite(step[part]) for step in losses for part in PARTS),
        "loss_mm": [float(losses[0]["offsets"]), float(losses[-1]["offsets"])],
        "largest_predicted_mm": float(heads[:, 1:].abs().max()),
    }


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--dataset", type=int, required=True)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2, help="how often each trainer takes its turn with the loader")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    return parser.parse_args()


if __name__ == "__main__":
    main()
