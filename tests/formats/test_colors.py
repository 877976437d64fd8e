import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scenes import touching_ids
from skimage.color import rgb2lab

from nnunetv2_conflunet.formats.colors import DARKER, PALETTE, lesion_colors


def by_id(instances):
    colors = lesion_colors(instances)
    return dict(zip(np.unique(instances[instances > 0]).tolist(), map(tuple, colors.tolist()), strict=True))


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint16, array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 9)))
def test_touching_lesions_differ_in_color(instances):
    colors = by_id(instances)
    assert all(colors[one] != colors[two] for one, two in touching_ids(instances))
    assert by_id(instances.copy()) == colors


def test_lesions_that_all_touch_each_other_have_a_color_each():
    # Lesion i is row i of one layer and column i of the next, so that each pair meets at two places.
    n = 40
    instances = np.zeros((2, n, n), int)
    instances[0] = np.arange(1, n + 1)[:, None]
    instances[1] = np.arange(1, n + 1)[None, :]
    assert len(touching_ids(instances)) == n * (n - 1) // 2
    assert len(set(by_id(instances).values())) == n


def test_one_with_more_neighbors_than_there_are_colors_needs_no_further_color():
    instances = np.zeros((1, 3, 41), int)
    instances[0, 1] = 100
    instances[0, 0, ::2] = np.arange(1, 22)
    instances[0, 2, ::2] = np.arange(22, 43)
    colors = by_id(instances)
    assert set(colors.values()) <= set(map(tuple, PALETTE.tolist()))
    assert colors[100] not in [color for i, color in colors.items() if i != 100]


def test_colors_are_used_evenly():
    alone = np.zeros((1, 1, 2 * 45), int)
    alone[0, 0, ::2] = np.arange(1, 46)
    _, counts = np.unique(lesion_colors(alone), axis=0, return_counts=True)
    assert counts.tolist() == [3] * 15


@pytest.mark.parametrize("shape", [(1, 5, 6), (0, 0, 0), (4, 4, 4)])
def test_an_empty_map_has_no_colors(shape):
    assert lesion_colors(np.zeros(shape, int)).shape == (0, 3)


def test_colors_of_the_palette_are_far_from_each_other_and_from_gray():
    lab = rgb2lab(PALETTE[None] / 255)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(PALETTE), 1)]
    assert distances.min() > 29
    assert np.linalg.norm(lab[:, 1:], axis=1).min() > 24 and lab[:, 0].min() > 35


def test_darker_shades_are_new_colors():
    shades = np.concatenate([np.rint(PALETTE * DARKER**i) for i in range(4)])
    assert len(np.unique(shades, axis=0)) == 60
