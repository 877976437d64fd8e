"""Colors of lesions that touch."""

import numpy as np
import pytest
from scenes import touching_ids

from nnunetv2_conflunet.pictures.colors import PALETTE, touching_colors


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 9, 9), (9, 9)])
@pytest.mark.parametrize("seed", range(6))
def test_lesions_that_touch_differ_and_the_colors_are_the_same_each_time(shape, seed):
    rng = np.random.default_rng(seed)
    # Boxes over one another; few have more neighbors than there are colors.
    instances = np.zeros(shape, np.int32)
    for i in rng.choice(10_000, 7, replace=False) + 1:
        start = [rng.integers(0, n) for n in shape]
        instances[tuple(slice(a, a + rng.integers(1, 5)) for a in start)] = i
    colors = touching_colors(instances)
    assert set(colors) == set(np.unique(instances).tolist()) - {0}
    assert set(colors.values()) <= set(PALETTE)
    assert all(colors[a] != colors[b] for a, b in touching_ids(instances))
    assert touching_colors(instances.copy()) == colors


def test_a_lesion_with_too_many_neighbors_has_the_rarest_color():
    # Id 100 touches twelve single voxels that do not touch each other.
    instances = np.zeros((3, 25), np.int32)
    instances[1, :] = 100
    instances[0, ::2] = np.arange(1, 14)
    colors = touching_colors(instances)
    of_others = [colors[i] for i in range(1, 14)]
    assert of_others.count(colors[100]) == min(of_others.count(color) for color in PALETTE)


def test_no_lesion_needs_no_color():
    assert touching_colors(np.zeros((3, 4, 5), np.int32)) == {}
