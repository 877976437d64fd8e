"""The plot of the parts of the loss."""

from types import SimpleNamespace

import pytest
from support import assert_whole_or_as_before

from nnunetv2_conflunet.trainers.progress import plot_loss_parts


@pytest.mark.parametrize("room", [0, 4096])
def test_on_a_full_disk_the_old_plot_stands(disk, room):
    logger = SimpleNamespace(get_value=lambda name, step: [3.0, 2.0, 1.5])
    assert_whole_or_as_before(disk, lambda: plot_loss_parts(logger, disk.folder), room)
