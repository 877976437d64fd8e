"""Pieces by climbing the heatmap, against hand geometry and against slow loops over single voxels."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_cc
from nnunetv2_conflunet.postprocessing.assignment import Assigner
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.postprocessing.prominence import climb
from nnunetv2_conflunet.postprocessing.voxels import Voxels

CLIMBING = InstantiationSettings(pieces="climbing", heatmap_threshold=0.2, min_volume_mm3=0, min_extent_mm=0)


def divided(foreground, heatmap, options=CLIMBING, **how):
    foreground, heatmap = np.asarray(foreground), np.asarray(heatmap, np.float32)
    offsets_mm = how.pop("offsets_mm", np.zeros((heatmap.ndim, *heatmap.shape)))
    spacing_mm = how.pop("spacing_mm", (1.0,) * foreground.ndim)
    return instantiate(foreground, spacing_mm, options, heatmap=heatmap, offsets_mm=offsets_mm, **how)


def line(*heights):
    """The instances of a line of foreground."""
    return divided([[True] * len(heights)], [heights]).instances[0].tolist()


def test_every_voxel_climbs_to_its_summit():
    found = divided(np.ones((1, 6)), [[0.4, 0.9, 0.3, 0.2, 0.5, 0.8]])
    assert found.instances.tolist() == [[1, 1, 1, 2, 2, 2]]
    assert found.center_score == pytest.approx([0.9, 0.8])
    assert found.report["n_centers"] == 2


def test_offsets_and_peaks_outside_the_mask_play_no_part():
    foreground = np.array([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    heatmap = [[0.0, 0.0, 1.0, 0.0, 0.0], [0.6, 0.4, 0.3, 0.4, 0.5]]
    found = divided(foreground, heatmap, offsets_mm=np.full((2, 2, 5), 2.0))
    assert found.instances[1].tolist() == [1, 1, 1, 2, 2]


def test_ways_lead_over_corners():
    assert divided(np.eye(4), np.diag([0.3, 0.4, 0.5, 0.6])).instances.max() == 1
    assert divided(np.eye(4), np.diag([0.6, 0.3, 0.5, 0.6])).instances.diagonal().tolist() == [1, 1, 2, 2]


def test_a_summit_at_the_threshold_is_a_center():
    # The least float32 value that is not below 0.2, and the next lower one.
    at, below = np.float32(0.2), np.nextafter(np.float32(0.2), np.float32(0))
    assert line(0.9, 0.1, at) == [1, 1, 2]
    assert line(0.9, 0.1, below) == [1, 1, 1]


def test_a_low_basin_joins_over_its_highest_pass():
    # The basin of 0.15 is 0.1 below the left and 0.05 below the right one.
    assert line(0.9, 0.05, 0.15, 0.1, 0.9) == [1, 1, 2, 2, 2]
    # Of two low ones, that in the middle joins the right one first, and goes where this leads.
    assert line(0.9, 0.02, 0.15, 0.12, 0.14, 0.05, 0.8) == [1, 1, 2, 2, 2, 2, 2]
    # Equal passes: that of the first summit.
    assert line(0.9, 0.05, 0.15, 0.05, 0.9) == [1, 1, 1, 2, 2]


def test_a_component_without_a_center_is_one_instance():
    found = divided([[1, 1, 1, 0, 1, 1]], [[0.15, 0.05, 0.1, 0.0, 0.3, 0.4]])
    assert found.instances.tolist() == [[1, 1, 1, 0, 2, 2]]
    assert np.isnan(found.center_score[0]) and found.center_score[1] == np.float32(0.4)
    assert found.report["n_instances_without_center"] == 1


def test_a_plateau_is_one_summit():
    assert line(0.5, 0.5, 0.5, 0.5, 0.5) == [1] * 5
    # In a horseshoe the ends are not neighbors of each other, nor of the first voxel in C order.
    horseshoe = np.array([[0, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]]) * 0.5
    found = divided(horseshoe > 0, horseshoe)
    assert found.instances.max() == 1 and found.report["n_centers"] == 1
    spiral = np.zeros((7, 7))
    spiral[0, :], spiral[:, 6], spiral[6, :], spiral[2:, 0], spiral[2, :5], spiral[2:5, 4] = [0.7] * 6
    assert divided(np.ones((7, 7)), spiral).report["n_centers"] == 1


def test_level_ground_below_a_summit_is_no_summit_and_is_divided_by_nearness():
    assert line(0.9, 0.5, 0.5, 0.5, 0.5, 0.8) == [1, 1, 1, 2, 2, 2]
    # The middle one goes with its first neighbor in C order.
    assert line(0.8, 0.5, 0.5, 0.5, 0.9) == [1, 1, 1, 2, 2]
    assert line(0.5, 0.5, 0.5, 0.5, 0.6) == [1] * 5


def test_of_equally_high_neighbors_the_first_leads():
    assert line(0.9, 0.3, 0.9) == [1, 1, 2]


def test_window_prominence_and_consistency_do_not_act_and_top_k_does():
    foreground, heatmap = np.ones((1, 7)), [[0.9, 0.5, 0.8, 0.75, 0.85, 0.1, 0.4]]
    strict = InstantiationSettings(**(CLIMBING.to_dict() | {"window_mm": 9.0, "min_prominence": 0.9,
                                                            "min_consistency": 9.0}))  # fmt: skip
    found = divided(foreground, heatmap, strict, offsets_mm=np.full((2, 1, 7), 3.0))
    np.testing.assert_array_equal(found.instances, divided(foreground, heatmap).instances)
    assert found.report["n_centers"] == 4
    few = InstantiationSettings(**(CLIMBING.to_dict() | {"top_k": 2}))
    with pytest.warns(UserWarning, match="4 centers found; top_k keeps the 2 highest"):
        found = divided(foreground, heatmap, few)
    # The basins of 0.8 and 0.4 join the one of 0.85 over 0.75 and 0.1.
    assert found.instances.tolist() == [[1, 1, 2, 2, 2, 2, 2]]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5)])
def test_an_empty_foreground_and_a_flat_heatmap(shape):
    assert not divided(np.zeros(shape), np.zeros(shape)).instances.any()
    for height in (0.0, 0.7):
        assert (divided(np.ones(shape), np.full(shape, height)).instances == 1).all()


def test_a_single_slice_is_a_plane():
    rng = np.random.default_rng(0)
    foreground, heatmap = rng.random((20, 24)) < 0.6, rng.random((20, 24))
    flat = divided(foreground, heatmap)
    slice_ = divided(foreground[None], heatmap[None], offsets_mm=np.zeros((2, 1, 20, 24)), spacing_mm=(999.0, 1, 1))
    np.testing.assert_array_equal(slice_.instances[0], flat.instances)


def test_heads_of_another_grid_are_climbed_at_the_voxels_of_the_image():
    # Half as many voxels, whose heatmap is interpolated to 0.8, 0.7, 0.5, 0.4, 0.4, 0.5, 0.7, 0.8 in the box.
    foreground = np.ones((1, 10))
    found = divided(foreground, [[0.8, 0.4, 0.3, 0.6]], heads_box=np.array([(0, 1), (1, 9)]))
    values = HeadMaps.of(
        np.array([[0.8, 0.4, 0.3, 0.6]]), np.zeros((2, 1, 4)), (1, 10), np.ones(2), np.array([(0, 1), (1, 9)])
    ).heatmap_at(Voxels.of(foreground > 0).coordinates)
    assert values == pytest.approx([0.8, 0.8, 0.7, 0.5, 0.375, 0.325, 0.375, 0.525, 0.6, 0.6])
    assert found.instances.tolist() == [[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]]
    np.testing.assert_array_equal(found.instances, divided(foreground, values[None]).instances)


@pytest.mark.parametrize("shape", [(12, 14, 16), (20, 24)])
@pytest.mark.parametrize("connectivity", [6, 26])
def test_merging_all_that_touch_gives_connected_components(shape, connectivity):
    rng = np.random.default_rng(1)
    foreground, heatmap = rng.random(shape) < 0.4, rng.random(shape)
    rule = MergeRule(0.0, *[0.0] * 7)
    options = InstantiationSettings(**(CLIMBING.to_dict() | {"connectivity": connectivity, "merge": rule}))
    found = divided(foreground, heatmap, options, offsets_mm=rng.normal(0, 2, (len(shape), *shape)))
    np.testing.assert_array_equal(found.instances, instantiate_cc(foreground, connectivity=connectivity))
    assert found.report["n_pieces_merged"] > 0


def test_axes_in_another_order_of_memory_change_nothing():
    rng = np.random.default_rng(2)
    foreground, heatmap = rng.random((9, 10, 11)) < 0.5, np.round(rng.random((9, 10, 11)) * 6) / 6
    plain = divided(foreground, heatmap).instances
    np.testing.assert_array_equal(divided(np.asfortranarray(foreground), np.asfortranarray(heatmap)).instances, plain)


def neighbors_of(voxel, heights):
    """The foreground neighbors of a voxel, in C order."""
    steps = product((-1, 0, 1), repeat=len(voxel))
    near = [tuple(a + b for a, b in zip(voxel, step, strict=True)) for step in steps if any(step)]
    return [i for i in near if i in heights]


def slow_summits(heights):
    """Of each voxel the summit, one voxel after the other; `heights` holds voxels in C order."""
    near = {voxel: neighbors_of(voxel, heights) for voxel in heights}
    steps = {v: 0 if any(heights[n] > heights[v] for n in near[v]) else np.inf for v in heights}
    for _ in heights:
        for v in heights:
            equal = [steps[n] + 1 for n in near[v] if heights[n] == heights[v]]
            steps[v] = min([steps[v], *equal])
    summit = {}
    for start in heights:
        v = start
        while steps[v] < np.inf:
            if steps[v] == 0:
                v = max(near[v], key=heights.__getitem__)
            else:
                v = next(n for n in near[v] if heights[n] == heights[v] and steps[n] == steps[v] - 1)
        top, found = [v], {v}
        for here in top:
            more = [n for n in near[here] if heights[n] == heights[here] and n not in found]
            top.extend(more)
            found.update(more)
        summit[start] = min(top)
    return summit


def slow_centers(heights, summit, threshold):
    """Of each voxel the summit whose center it belongs to, None without; low basins join one after the other."""
    basin = dict(summit)
    is_center = {top: heights[top] >= np.float32(threshold) for top in summit.values()}
    order = sorted(
        (-min(heights[v], heights[n]), *sorted((summit[v], summit[n])))
        for v in heights
        for n in neighbors_of(v, heights)
        if summit[v] != summit[n]
    )
    for _, one, other in order:
        a, b = basin[one], basin[other]
        if a != b and not (is_center[a] and is_center[b]):
            stays, goes = (a, b) if is_center[a] else (b, a)
            basin = {voxel: stays if top == goes else top for voxel, top in basin.items()}
    return {voxel: top if is_center[top] else None for voxel, top in basin.items()}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(9, 8), (4, 5, 6), (1, 40), (6, 1, 7)]),
    levels=st.sampled_from([2, 4, 8, 10**6]),
    smooth=st.sampled_from([0.0, 0.8]),
    threshold=st.sampled_from([0.01, 0.5, 0.75]),
    density=st.sampled_from([0.4, 0.8, 1.0]),
)
def test_matches_the_slow_loops(seed, shape, levels, smooth, threshold, density):
    rng = np.random.default_rng(seed)
    heatmap = ndimage.gaussian_filter(rng.random(shape), smooth)
    heatmap = (np.round((heatmap - heatmap.min()) / np.ptp(heatmap) * levels) / levels).astype(np.float32)
    voxels = Voxels.of(rng.random(shape) < density)
    heights = {tuple(v): heatmap[tuple(v)] for v in voxels.coordinates.tolist()}
    summit = slow_summits(heights)
    value = np.array(list(heights.values()), np.float32)
    found = voxels.coordinates[climb(voxels, value)]
    assert [tuple(top) for top in found.tolist()] == list(summit.values())
    options = InstantiationSettings(pieces="climbing", heatmap_threshold=threshold)
    heads = HeadMaps.of(heatmap, np.zeros((len(shape), *shape)), shape, np.ones(len(shape)))
    assigner = Assigner(voxels, heads, [options])
    centers = assigner.centers(options)
    expected = slow_centers(heights, summit, threshold)
    numbers = {tuple(top): i + 1 for i, top in enumerate(centers.indices.tolist())} | {None: 0}
    assert set(numbers) - {None} == {top for top in summit.values() if heights[top] >= np.float32(threshold)}
    assert assigner.assign(options).center.tolist() == [numbers[top] for top in expected.values()]
    assert (np.diff(centers.scores) <= 0).all()
