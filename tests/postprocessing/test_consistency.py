"""Consistency of centers against distances counted by hand and against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_conflunet.postprocessing import instantiate_center_offset
from nnunetv2_conflunet.postprocessing.prominence import is_consistent


def on_a_line(positions_mm, offsets_mm, least):
    """Positions and offsets along one axis of two."""
    centers_mm, pointed = (np.stack([np.zeros(len(i)), i], axis=1) for i in (positions_mm, offsets_mm))
    return is_consistent(centers_mm, pointed, least).tolist()


def test_consistency_is_the_distance_to_the_other_in_units_of_that_to_itself():
    # From 10 the offset leads to 6: 6 mm from the other, 4 mm from itself.
    assert on_a_line([0, 10], [0, -4], 1.5) == [True, True]
    assert on_a_line([0, 10], [0, -4], 1.51) == [True, False]


def test_below_one_the_paper_gives_the_voxel_to_the_other():
    assert on_a_line([0, 10], [0, -5.1], 1) == [True, False]
    assert on_a_line([0, 10], [0, -4.9], 1) == [True, True]


def test_an_offset_that_leads_to_no_other_center_leaves_a_center_one():
    assert on_a_line([0, 10], [0, 8], 2) == [True, True]
    assert on_a_line([0, 10, 30], [0, 0, -5], 2) == [True, True, True]


def test_offsets_of_nothing_are_consistent_and_zero_keeps_all():
    assert on_a_line([0, 1], [0, 0], 1000) == [True, True]
    assert on_a_line([0, 10], [10, -10], 0) == [True, True]
    assert on_a_line([3], [7], 2) == [True]
    assert on_a_line([], [], 2) == []


def test_of_two_that_point_at_each_other_the_first_stays():
    assert on_a_line([0, 10], [8, -8], 1) == [True, False]
    assert on_a_line([10, 0], [-8, 8], 1) == [True, False]


def test_a_center_that_is_left_out_claims_none():
    # The last leads to the first and is left out, so that the second, which leads to the last, stays.
    assert on_a_line([0, 20, 10], [0, -10, -9], 1) == [True, True, False]
    # In the other order the second of the three is judged while the third is there, and is left out with it.
    assert on_a_line([0, 10, 20], [0, -9, -10], 1) == [True, False, False]


def one_after_another(centers_mm, offsets_mm, least):
    kept = [True] * len(centers_mm)
    for k in reversed(range(len(centers_mm))):
        end = centers_mm[k] + offsets_mm[k]
        others = [np.linalg.norm(end - centers_mm[j]) for j in range(len(centers_mm)) if j != k and kept[j]]
        kept[k] = not others or min(others) >= least * np.linalg.norm(offsets_mm[k])
    return kept


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 30),
    st.sampled_from([2, 3]),
    st.sampled_from([0.3, 1.0, 1.25, 2.0, 5.0]),
)
def test_like_one_after_another(seed, n, dim, least):
    rng = np.random.default_rng(seed)
    centers_mm, offsets_mm = rng.uniform(0, 20, (n, dim)), rng.normal(0, 4, (n, dim))
    found = is_consistent(centers_mm, offsets_mm, least)
    assert found.tolist() == one_after_another(centers_mm, offsets_mm, least)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_centers_to_which_their_offsets_lead_are_kept(seed, n):
    rng = np.random.default_rng(seed)
    centers_mm = rng.permutation(np.stack(np.meshgrid(*[np.arange(0, 20, 4.0)] * 3), axis=-1).reshape(-1, 3))[:n]
    # The nearest other center is at least 4 - 1 mm from where an offset of at most 1 mm ends.
    direction = rng.normal(size=(n, 3))
    offsets_mm = direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(0, 1, (n, 1))
    assert is_consistent(centers_mm, offsets_mm, 2.99).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 0.5)])
def test_an_invented_center_of_a_long_lesion(spacing_mm):
    # Along the first axis a lesion of 21 voxels with its center at 6 and an invented one at 14.
    shape = (23, 5, 5)
    foreground, heatmap, offsets_mm = np.zeros(shape, bool), np.zeros(shape, np.float32), np.zeros((3, *shape))
    foreground[1:22, 1:4, 1:4] = True
    heatmap[6, 2, 2], heatmap[14, 2, 2] = 0.9, 0.6
    # Voxels of the far end lead 5 of the 8 voxels towards the center: 3 from it, 5 from themselves.
    offsets_mm[0, 10:] = -5 * spacing_mm[0]
    arguments = foreground, heatmap, offsets_mm, spacing_mm
    assert instantiate_center_offset(*arguments).max() == 2
    assert instantiate_center_offset(*arguments, min_consistency=0.59).max() == 2
    assert instantiate_center_offset(*arguments, min_consistency=0.61).max() == 1


def test_perfect_heads_have_consistent_centers(toys):
    shape, spacing_mm = (40, 40, 40), (1.0, 1.0, 1.0)
    instances = toys.balls(12, shape, spacing_mm, 8)
    arguments = instances, *toys.perfect_heads(instances, spacing_mm), spacing_mm
    expected = instantiate_center_offset(*arguments)
    assert expected.max() >= 8
    np.testing.assert_array_equal(instantiate_center_offset(*arguments, min_consistency=1.25), expected)
