"""The parts of the loss in the log, and their plot."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support import assert_whole_or_as_before

from nnunetv2_conflunet.trainers import progress
from nnunetv2_conflunet.trainers.progress import (
    add_loss_parts,
    describe_loss_parts,
    log_loss_parts,
    plot_loss_parts,
)


class Logger:
    """The part of nnU-Net's logger that is used."""

    def __init__(self):
        self.local_logger = SimpleNamespace(my_fantastic_logging={})

    def log(self, key, value, epoch):
        self.local_logger.my_fantastic_logging[key].append(value)

    def get_value(self, key, step):
        values = self.local_logger.my_fantastic_logging[key]
        return values if step is None else values[step]


def step(offsets, measured):
    return {"seg": 0.5, "center": 0.25, "offsets": offsets, "measured": np.array([True, True, measured])}


@pytest.fixture
def logger():
    made = Logger()
    add_loss_parts(made)
    return made


def test_offsets_that_no_voxel_had_a_target_for_are_not_zero(logger):
    log_loss_parts(logger, "val", [step(0.0, False), step(0.0, False)], 0, is_ddp=False)
    assert math.isnan(logger.get_value("val_losses_offsets", -1))
    assert describe_loss_parts(logger, "val") == "seg 0.5000, center 0.2500, offsets not measured"


def test_steps_without_targets_do_not_count(logger):
    log_loss_parts(logger, "val", [step(0.0, False), step(3.0, True), step(5.0, True)], 0, is_ddp=False)
    assert describe_loss_parts(logger, "val") == "seg 0.5000, center 0.2500, offsets 4.0000"


@pytest.mark.parametrize("steps, told", [([], "seg not measured"), ([step(3.0, True)], "seg 0.5000")])
def test_the_steps_of_a_trainer_that_returns_nothing_but_the_loss_do_not_count(logger, steps, told):
    log_loss_parts(logger, "train", [{"loss": np.float32(0.5)}, *steps], 0, is_ddp=False)
    assert describe_loss_parts(logger, "train").startswith(told)


def test_the_steps_of_all_processes_that_have_targets_count_alike(logger, monkeypatch):
    sent = []

    def gather(of_all, own):
        sent.append(own)
        of_all[:] = [sent[0], own]

    monkeypatch.setattr(progress.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(progress.dist, "all_gather_object", gather)
    log_loss_parts(logger, "val", [step(0.0, False), step(0.0, False)], 0, is_ddp=True)
    assert describe_loss_parts(logger, "val") == "seg 0.5000, center 0.2500, offsets not measured"
    log_loss_parts(logger, "val", [step(3.0, True), step(0.0, False)], 1, is_ddp=True)
    assert describe_loss_parts(logger, "val") == "seg 0.5000, center 0.2500, offsets 3.0000"
    sent[:] = sent[1:]
    log_loss_parts(logger, "val", [step(6.0, True), step(6.0, True)], 2, is_ddp=True)
    assert describe_loss_parts(logger, "val") == "seg 0.5000, center 0.2500, offsets 5.0000"


@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_old_plot_stands(disk, room):
    logger = SimpleNamespace(get_value=lambda name, step: [3.0, 2.0, 1.5])
    assert_whole_or_as_before(disk, lambda: plot_loss_parts(logger, disk.folder), room)
