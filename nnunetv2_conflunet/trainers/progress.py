"""The parts of the loss in nnU-Net's log, and their plot."""

from pathlib import Path

import numpy as np
import torch.distributed as dist
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_conflunet.nnunet_plugin.logger import add_log_keys
from nnunetv2_conflunet.trainers.loss import MEASURED, PARTS
from nnunetv2_conflunet.utilities.files import atomic_path

PHASES = ("train", "val")
UNITS = {"seg": "nnU-Net's loss", "center": "mean squared error", "offsets": "L1 error [mm]"}


class LogsLossParts(nnUNetTrainer):
    """nnU-Net's trainer, which also logs, prints and plots the parts of a loss that its steps return."""

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Also log the parts of the training loss."""
        super().on_train_epoch_end(train_outputs)
        log_loss_parts(self.logger, "train", train_outputs, self.current_epoch, self.is_ddp)

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Also log the parts of the validation loss."""
        super().on_validation_epoch_end(val_outputs)
        log_loss_parts(self.logger, "val", val_outputs, self.current_epoch, self.is_ddp)

    def on_epoch_end(self) -> None:
        """Also print and plot the parts of the loss."""
        for phase in PHASES:
            self.print_to_log_file(f"{phase}_loss parts: {describe_loss_parts(self.logger, phase)}")
        super().on_epoch_end()
        if self.local_rank == 0:
            plot_loss_parts(self.logger, self.output_folder)


def log_key(phase: str, part: str) -> str:
    """Key in nnU-Net's log for a part of the loss in a phase, ``train`` or ``val``.

    >>> log_key("val", "center")
    'val_losses_center'
    """
    return f"{phase}_losses_{part}"


def add_loss_parts(logger: MetaLogger) -> None:
    """Let nnU-Net's logger accept the parts of the loss."""
    add_log_keys(logger, [log_key(phase, part) for phase in PHASES for part in PARTS])


def log_loss_parts(logger: MetaLogger, phase: str, steps: list[dict], epoch: int, is_ddp: bool) -> None:
    """Log each part's mean over the steps of an epoch, of all processes, that measured it; NaN if none did.

    Args:
        logger: nnU-Net's logger.
        phase: ``train`` or ``val``.
        steps: the results of the steps, with the parts by name, and (3,) bool under ``MEASURED``; those without do not
            count, as of a subclass whose step is its own.
        epoch: the epoch they belong to.
        is_ddp: whether training is distributed over several processes.
    """
    steps = [step for step in steps if MEASURED in step]
    measured = np.reshape([step[MEASURED] for step in steps], (-1, len(PARTS))).astype(bool)
    values = np.reshape([[step[part] for part in PARTS] for step in steps], measured.shape)
    total = values.sum(axis=0, where=measured)
    # Steps without a lesion have no offsets, and no error in them.
    own = total, measured.sum(axis=0)
    of_all: list = [own]
    if is_ddp:
        of_all = [None] * dist.get_world_size()
        dist.all_gather_object(of_all, own)
    total, n_measured = np.sum(of_all, axis=0)
    for part, sum_of_part, n in zip(PARTS, total, n_measured, strict=True):
        logger.log(log_key(phase, part), float(sum_of_part / n) if n else np.nan, epoch)


def describe_loss_parts(logger: MetaLogger, phase: str) -> str:
    """The parts in the last epoch, in one line; a part without any target is "not measured"."""
    values = {part: logger.get_value(log_key(phase, part), step=-1) for part in PARTS}
    return ", ".join(f"{part} {'not measured' if np.isnan(x) else f'{x:.4f}'}" for part, x in values.items())


def plot_loss_parts(logger: MetaLogger, output_folder: str) -> None:
    """Write ``progress_loss_parts.png`` next to nnU-Net's ``progress.png``, one panel per part."""
    figure = Figure(figsize=(10, 12), layout="constrained")
    for axes, part in zip(figure.subplots(len(PARTS), 1, sharex=True), PARTS, strict=True):
        for phase, color in zip(PHASES, ("b", "r"), strict=True):
            values = logger.get_value(log_key(phase, part), step=None)
            axes.plot(range(len(values)), values, color=color, label=f"{part} ({phase})")
        axes.set_ylabel(f"{part}: {UNITS[part]}")
        axes.legend(loc="upper right")
    axes.set_xlabel("epoch")
    with atomic_path(Path(output_folder) / "progress_loss_parts.png") as temporary:
        figure.savefig(temporary)
