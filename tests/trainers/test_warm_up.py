import math

import pytest
import torch

from nnunetv2_conflunet.trainers.warm_up import epoch_of_first_mask, heads_weight, set_momentum


@pytest.mark.parametrize(
    "pseudo_dice, began",
    [
        ([], 9),
        ([0.2], 0),
        ([0.0, 0.05, 0.1, 0.0], 2),
        ([0.0, math.nan] * 4, 9),
        ([0.0] * 15 + [0.3], 9),
    ],
    ids=["nothing yet", "at once", "later low again", "no foreground", "too late"],
)
def test_the_mask_has_begun_in_the_first_epoch_with_a_dice_of_a_tenth_or_half_way(pseudo_dice, began):
    assert epoch_of_first_mask(pseudo_dice, 20) == began


def test_the_heads_come_in_over_a_share_of_the_epochs():
    assert [heads_weight(epoch, 2, 20, 0.2) for epoch in (0, 2, 3, 4, 6, 19)] == [0, 0, 0.25, 0.5, 1, 1]


def test_without_a_warm_up_the_heads_count_from_the_first_step():
    assert [heads_weight(epoch, 10, 20, 0.0) for epoch in (0, 19)] == [1, 1]


def test_momentum_is_low_until_the_mask_has_begun():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.99)
    found = {}
    for epoch in (0, 2, 3):
        set_momentum(optimizer, epoch, 2, 0.9)
        found[epoch] = optimizer.param_groups[0]["momentum"]
    assert found == {0: 0.9, 2: 0.9, 3: 0.99}


def test_a_smaller_momentum_of_the_users_own_is_kept():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.5)
    set_momentum(optimizer, 0, 2, 0.9)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_an_optimizer_without_momentum_stays_as_it_is():
    optimizer = torch.optim.Adam([torch.zeros(1)])
    before = dict(optimizer.param_groups[0])
    set_momentum(optimizer, 0, 2, 0.9)
    assert optimizer.param_groups[0] == before
