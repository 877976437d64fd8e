"""Peaks against plateaus drawn by hand and against a slow search."""

import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.assignment import Assigner
from nnunetv2_conflunet.postprocessing.centers import find_peaks, window_voxels
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def peaks(heatmap, spacing_mm=None, *, threshold=0.1, window_mm=3.0):
    spacing_mm = np.ones(heatmap.ndim) if spacing_mm is None else np.array(spacing_mm, float)
    return find_peaks(heatmap.astype(np.float32), spacing_mm, threshold=threshold, window_mm=window_mm)


@pytest.mark.parametrize(
    ("window_mm", "spacing_mm", "voxels"),
    [
        (3.0, (1, 1, 1), (3, 3, 3)),
        (3.0, (0.5, 1, 3), (5, 3, 3)),
        (3.0, (0.6, 0.6, 0.59), (5, 5, 5)),
        (3.0, (0.61, 0.43, 0.42), (3, 5, 7)),
        (5.0, (1, 1, 2), (5, 5, 3)),
        (4.9, (1, 1, 2), (3, 3, 3)),
        (3.0, np.float32((0.12, 0.12, 0.12)), (25, 25, 25)),
        (0.1, (1, 1, 1), (3, 3, 3)),
    ],
)
def test_the_window_is_the_largest_odd_number_of_voxels_that_fits(window_mm, spacing_mm, voxels):
    assert tuple(window_voxels(window_mm, np.array(spacing_mm, float))) == voxels


def test_a_plateau_is_one_peak_at_the_member_nearest_to_its_mean():
    heatmap = np.zeros((9, 9))
    heatmap[4, 1:8] = 0.5
    assert peaks(heatmap).indices.tolist() == [[4, 4]]
    # An L of 11 voxels whose mean (5.09, 3.91) lies outside of it; (6, 4) is 0.91 away, (6, 3) 1.29, (5, 2) 1.91.
    heatmap = np.zeros((10, 10))
    heatmap[2:7, 2] = heatmap[6, 2:9] = 0.5
    assert peaks(heatmap).indices.tolist() == [[6, 4]]


def test_members_equally_near_to_the_mean_leave_it_to_the_first():
    heatmap = np.zeros((6, 6, 6))
    heatmap[2:4, 2:4, 2:4] = 0.5
    assert peaks(heatmap).indices.tolist() == [[2, 2, 2]]


def test_distance_to_the_mean_is_in_mm():
    # The mean is (2, 1.75): (2, 2) is the nearest member.
    heatmap = np.zeros((5, 5))
    heatmap[[1, 2, 3], [1, 3, 1]] = 0.5
    heatmap[2, 2] = 0.5
    assert peaks(heatmap, (1, 1)).indices.tolist() == [[2, 2]]
    heatmap[2, 2] = 0
    heatmap[1, 2] = heatmap[3, 2] = 0.5
    # Mean (2, 1.8): (2, 3) is 1.2 columns away, (1, 2) is one row and 0.2 columns away.
    assert peaks(heatmap, (1, 1)).indices.tolist() == [[1, 2]]
    assert peaks(heatmap, (3, 1)).indices.tolist() == [[2, 3]]


def test_a_shoulder_is_a_peak_only_outside_the_window_of_something_higher():
    heatmap = np.zeros((5, 9))
    heatmap[2, 2:5] = 0.5
    heatmap[2, 5] = 0.6
    # (2, 2) and (2, 3) do not have the higher voxel in their window; they are a plateau of their own.
    assert peaks(heatmap).indices.tolist() == [[2, 5], [2, 2]]
    assert peaks(heatmap, window_mm=7.0).indices.tolist() == [[2, 5]]


def test_equal_maxima_that_do_not_touch_are_one_plateau_in_a_wider_window():
    heatmap = np.zeros((5, 11))
    heatmap[2, [3, 5, 7]] = 0.5
    assert len(peaks(heatmap).indices) == 3
    assert peaks(heatmap, window_mm=5.0).indices.tolist() == [[2, 5]]


def test_the_threshold_itself_is_high_enough():
    heatmap = np.zeros((5, 5))
    heatmap[2, 2] = 0.1
    assert len(peaks(heatmap, threshold=0.1).indices) == 1
    assert len(peaks(heatmap, threshold=0.11).indices) == 0


def test_a_constant_heatmap_is_one_peak_in_the_middle():
    assert peaks(np.full((7, 7, 7), 0.3)).indices.tolist() == [[3, 3, 3]]


def test_large_equal_blocks_take_little_memory():
    heatmap = np.zeros((60, 60, 60))
    heatmap[:25] = heatmap[39:] = 1
    tracemalloc.start()
    found = peaks(heatmap, window_mm=31.0)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.indices) == 1
    # A list of all pairs would take more than 1 GB.
    assert peak_bytes < 3e8


def test_thick_slices_do_not_multiply_a_lesion():
    at = np.stack(np.meshgrid(np.arange(9) * 3.0, np.arange(20), np.arange(20), indexing="ij"), axis=-1)
    heatmap = np.exp(-((at - (12, 10, 10)) ** 2).sum(axis=-1) / 8)
    assert heatmap[3, 10, 10] > 0.1
    assert peaks(heatmap, (3, 1, 1)).indices.tolist() == [[4, 10, 10]]


def test_peaks_come_from_the_highest_and_then_in_array_order():
    heatmap = np.zeros((5, 20))
    heatmap[2, [2, 8, 14]] = 0.4, 0.9, 0.4
    found = peaks(heatmap)
    assert found.indices[:, 1].tolist() == [8, 2, 14]
    assert found.scores == pytest.approx([0.9, 0.4, 0.4])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(14, 15), (9, 8, 10)]),
    window_mm=st.sampled_from([3.0, 5.0]),
    spacing_mm=st.sampled_from([1.0, 0.7]),
)
def test_matches_max_pooling_where_values_differ(seed, shape, window_mm, spacing_mm):
    heatmap = np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) / np.prod(shape)
    heatmap = heatmap.astype(np.float32)
    spacing = np.full(len(shape), spacing_mm)
    pooled = ndimage.maximum_filter(heatmap, size=tuple(window_voxels(window_mm, spacing)), mode="constant")
    expected = np.argwhere((pooled == heatmap) & (heatmap >= 0.3))
    found = peaks(heatmap, spacing, threshold=0.3, window_mm=window_mm).indices
    assert {*map(tuple, found)} == {*map(tuple, expected)}


@pytest.mark.parametrize("shape", [(14, 15), (6, 8, 10), (1, 9, 9)])
@pytest.mark.parametrize("window_mm", [3.0, 5.0, 9.0])
@pytest.mark.parametrize("levels", [4, 1000])
def test_a_wide_window_is_searched_in_another_way_with_the_same_peaks(monkeypatch, shape, window_mm, levels):
    for seed in range(20):
        heatmap = np.random.default_rng(seed).integers(0, levels, shape) / levels
        looked_at = peaks(heatmap, window_mm=window_mm)
        with monkeypatch.context() as patch:
            patch.setattr("nnunetv2_conflunet.postprocessing.centers.WIDE", 0)
            passed_over = peaks(heatmap, window_mm=window_mm)
        np.testing.assert_array_equal(passed_over.indices, looked_at.indices)


def test_voxels_are_compared_part_by_part_with_the_same_peaks(monkeypatch):
    heatmap = np.random.default_rng(0).integers(1, 30, (12, 13, 14)) / 30
    at_once = peaks(heatmap, window_mm=5.0)
    monkeypatch.setattr("nnunetv2_conflunet.postprocessing.centers.PART_VOXELS", 50)
    np.testing.assert_array_equal(peaks(heatmap, window_mm=5.0).indices, at_once.indices)


@pytest.mark.parametrize("shape", [(200, 300), (20, 60, 60)])
def test_a_window_wider_than_the_image_ends_at_its_border(shape):
    # 16,666 voxels of 0.3 um in a window of 5 mm.
    heatmap = np.random.default_rng(0).random(shape)
    found = peaks(heatmap, (0.0003,) * len(shape), window_mm=5.0)
    assert found.indices.tolist() == [list(np.unravel_index(heatmap.astype(np.float32).argmax(), shape))]


def one_a_plateau(heatmap, spacing_mm, threshold, window_mm):
    """Every two maxima compared: those in each other's windows are joined until nothing changes."""
    half = window_voxels(window_mm, spacing_mm) // 2
    pooled = ndimage.maximum_filter(heatmap, size=tuple(2 * half + 1), mode="nearest")
    maxima = np.argwhere((pooled == heatmap) & (heatmap >= threshold))
    near = (np.abs(maxima[:, None] - maxima) <= half).all(axis=-1)
    plateau = np.arange(len(maxima))
    while (joined := np.where(near, plateau, len(plateau)).min(axis=1)).tolist() != plateau.tolist():
        plateau = joined
    found = []
    for members in (maxima[plateau == number] for number in np.unique(plateau)):
        squared_mm2 = (((members - members.mean(axis=0)) * spacing_mm) ** 2).sum(axis=1)
        found.append(members[np.argmax(squared_mm2 <= squared_mm2.min() + 1e-6)].tolist())
    return sorted(found, key=lambda peak: (-heatmap[tuple(peak)], peak))


@pytest.mark.parametrize(
    ("shape", "spacing_mm"), [((14, 15), (1, 1)), ((6, 8, 10), (3, 1, 1)), ((1, 12, 12), (1, 1, 0.5))]
)
@pytest.mark.parametrize("window_mm", [3.0, 5.0, 7.0])
@pytest.mark.parametrize("levels", [1, 2, 4, 30])
@pytest.mark.parametrize("most_pairs", [0, 10**7])
def test_plateaus_match_a_comparison_of_every_two_maxima(monkeypatch, shape, spacing_mm, window_mm, levels, most_pairs):
    monkeypatch.setattr("nnunetv2_conflunet.postprocessing.centers.MOST_PAIRS", most_pairs)
    spacing_mm = np.array(spacing_mm, float)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        # Blocks that are solid, and single voxels.
        heatmap = np.where(rng.random(shape) < 0.2, rng.integers(0, levels + 1, shape), 0)
        heatmap = np.maximum(heatmap, ndimage.maximum_filter(heatmap * (rng.random(shape) < 0.1), 3)) / levels
        heatmap = heatmap.astype(np.float32)
        expected = one_a_plateau(heatmap, spacing_mm, np.float32(0.1), window_mm)
        assert peaks(heatmap, spacing_mm, window_mm=window_mm).indices.tolist() == expected


def test_settings_together_have_the_centers_that_each_has_alone():
    rng = np.random.default_rng(0)
    heatmap = ndimage.gaussian_filter(rng.random((12, 13, 14)), 1)
    heatmap = (heatmap - heatmap.min()) / np.ptp(heatmap)
    heads = HeadMaps.of(heatmap, rng.normal(0, 2, (3, 12, 13, 14)), heatmap.shape, np.ones(3))
    every = [
        InstantiationSettings(heatmap_threshold=t, window_mm=w, min_prominence=p, min_consistency=c)
        for t, w, p, c in product((0.2, 0.6), (3.0, 5.0), (0.0, 0.1, 0.4), (0.0, 1.25))
    ]
    voxels = Voxels.of(heatmap > 0)
    together = Assigner(voxels, heads, every)
    found = {len(together.centers(one).scores) for one in every}
    assert len(found) > 5
    for one in every:
        alone = Assigner(voxels, heads, [one]).centers(one)
        np.testing.assert_array_equal(together.centers(one).indices, alone.indices)
        np.testing.assert_array_equal(together.centers(one).scores, alone.scores)
