"""Prominence against ridges drawn by hand and against a slow search over all levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate_center_offset
from nnunetv2_conflunet.postprocessing.assignment import Assigner
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.prominence import relative_prominence
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def ridge(*heights):
    """A line of heights in a plane of zeros."""
    heatmap = np.zeros((5, len(heights) + 2), np.float32)
    heatmap[2, 1:-1] = heights
    return heatmap


def peaks_of(heatmap, threshold=0.1, window_mm=3.0, min_prominence=0.0):
    heads = HeadMaps.of(heatmap, np.zeros((heatmap.ndim, *heatmap.shape)), heatmap.shape, np.ones(heatmap.ndim))
    options = InstantiationSettings(heatmap_threshold=threshold, window_mm=window_mm, min_prominence=min_prominence)
    return Assigner(Voxels.of(heatmap > 0), heads, [options]).centers(options).indices


def on_the_line(heatmap, **options):
    return peaks_of(heatmap, **options)[:, 1].tolist()


def test_a_peak_falls_to_the_highest_pass_on_the_way_to_a_higher_one():
    heatmap = ridge(0.8, 0.6, 1.0, 0.4, 0.5)
    # From 0.8 down to 0.6: a quarter of 0.8. From 0.5 down to 0.4: a fifth of 0.5.
    assert on_the_line(heatmap) == [3, 1, 5]
    assert relative_prominence(heatmap, peaks_of(heatmap), 0.9) == pytest.approx([1, 0.25, 0.2])


def test_a_pass_further_on_counts_where_the_nearer_peak_is_lower():
    # 0.7 lies between; from 0.8 to the higher 1.0 the way falls to 0.3.
    heatmap = ridge(0.8, 0.5, 0.7, 0.3, 1.0)
    prominence = relative_prominence(heatmap, peaks_of(heatmap), 0.9)
    assert prominence == pytest.approx([1, 1 - 0.3 / 0.8, 1 - 0.5 / 0.7])


def test_of_several_ways_the_highest_counts():
    heatmap = np.zeros((7, 7), np.float32)
    heatmap[1, 1:6] = 0.8, 0.2, 0.2, 0.2, 1.0
    heatmap[2:5, 1] = heatmap[2:5, 5] = heatmap[5, 1:6] = 0.6
    assert relative_prominence(heatmap, np.array([[1, 5], [1, 1]]), 0.9) == pytest.approx([1, 0.25])


def test_ways_lead_over_corners():
    heatmap = np.zeros((5, 5, 5), np.float32)
    heatmap[1, 1, 1], heatmap[2, 2, 2], heatmap[3, 3, 3] = 0.8, 0.6, 1.0
    assert relative_prominence(heatmap, peaks_of(heatmap), 0.9) == pytest.approx([1, 0.25])


def test_of_equally_high_peaks_the_earlier_is_the_higher():
    assert relative_prominence(ridge(0.8, 0.6, 0.8), np.array([[2, 1], [2, 3]]), 0.9) == pytest.approx([1, 0.25])


def test_peaks_that_share_no_ridge_are_prominent():
    assert relative_prominence(ridge(0.8, 0.0, 0.0, 1.0), np.array([[2, 4], [2, 1]]), 0.9).tolist() == [1, 1]
    # The way falls by 0.75 of the lower peak, more than is asked for.
    assert relative_prominence(ridge(0.8, 0.2, 1.0), np.array([[2, 3], [2, 1]]), 0.7).tolist() == [1, 1]


def test_a_shoulder_has_no_prominence():
    for heights, top, shoulder in (((0.5, 0.5, 0.5, 0.6), 4, 1), ((0.6, 0.5, 0.5, 0.5), 1, 3)):
        heatmap = ridge(*heights)
        assert on_the_line(heatmap) == [top, shoulder]
        assert relative_prominence(heatmap, peaks_of(heatmap), 0.9).tolist() == [1, 0]
        assert on_the_line(heatmap, min_prominence=0.0) == [top, shoulder]


def test_a_shoulder_below_a_summit_that_is_no_peak_has_no_prominence():
    # 0.6 lies in the window of 0.7; the way from the shoulder at 0.5 leads over it, and falls to 0.5 nowhere.
    heatmap = ridge(0.7, 0.55, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert on_the_line(heatmap, window_mm=5.0) == [1, 7]
    assert relative_prominence(heatmap, peaks_of(heatmap, window_mm=5.0), 0.9).tolist() == [1, 0]
    assert on_the_line(heatmap, window_mm=5.0, min_prominence=0.01) == [1]


def test_a_way_may_lead_over_summits_that_are_no_peaks():
    # The two of 0.4 lie below the threshold; from 0.8 to 1.0 the way falls to 0.25.
    heatmap = ridge(0.8, 0.25, 0.4, 0.3, 0.4, 0.25, 1.0)
    peaks = peaks_of(heatmap, threshold=0.5)
    assert peaks[:, 1].tolist() == [7, 1]
    assert relative_prominence(heatmap, peaks, 0.9) == pytest.approx([1, 1 - 0.25 / 0.8])


def test_one_peak_and_none():
    assert relative_prominence(ridge(0.5), np.array([[2, 1]]), 0.9).tolist() == [1]
    assert relative_prominence(ridge(0.5), np.zeros((0, 2), int), 0.9).tolist() == []


def test_peaks_below_the_least_prominence_are_left_out_and_that_very_prominence_stays():
    heatmap = ridge(0.8, 0.6, 1.0, 0.4, 0.5)
    assert on_the_line(heatmap, min_prominence=0.2) == [3, 1, 5]
    assert on_the_line(heatmap, min_prominence=0.2005) == [3, 1]
    assert on_the_line(heatmap, min_prominence=0.26) == [3]


def test_the_threshold_plays_no_part_in_the_prominence():
    # The pass at 0.35 lies between the thresholds.
    heatmap = ridge(0.5, 0.35, 0.6)
    for threshold in (0.1, 0.4):
        assert on_the_line(heatmap, threshold=threshold, min_prominence=0.29) == [3, 1]
        assert on_the_line(heatmap, threshold=threshold, min_prominence=0.31) == [3]


def test_a_plateau_keeps_its_center():
    # Its members are equally high; without care each would lead to the other.
    heatmap = ridge(0.5, 0.5, 0.5, 0.5, 0.5)
    assert on_the_line(heatmap, min_prominence=0.5) == [3]
    # Equal maxima of one window are one plateau, whose middle member stands for all.
    heatmap = ridge(0.5, 0.4, 0.5, 0.4, 0.5)
    assert on_the_line(heatmap, window_mm=5.0, min_prominence=0.5) == [3]


def level_by_level(heatmap, peaks):
    """Lower a water line until a higher peak stands on the same island."""
    height = heatmap[tuple(peaks.T)]
    every = np.ones((3,) * heatmap.ndim)
    found = np.ones(len(peaks))
    for k in range(1, len(peaks)):
        for level in np.unique(heatmap)[::-1]:
            island = ndimage.label(heatmap >= level, every)[0]
            mine = island[tuple(peaks[k])]
            if level <= height[k] and (island[tuple(peaks[:k].T)] == mine).any():
                found[k] = 1 - level / height[k]
                break
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(13, 12), (6, 7, 8)]),
    levels=st.sampled_from([4, 8, 20, 10**6]),
    window_mm=st.sampled_from([3.0, 5.0, 7.0]),
    largest=st.sampled_from([0.1, 0.3, 0.95]),
)
def test_matches_the_slow_search(seed, shape, levels, window_mm, largest):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 0.7)
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    heatmap = (np.round(smooth * levels) / levels).astype(np.float32)
    peaks = peaks_of(heatmap, window_mm=window_mm)
    found, expected = relative_prominence(heatmap, peaks, largest), level_by_level(heatmap, peaks)
    assert (found[found < 1] <= largest).all()
    # What falls by `largest` up to rounding may be either side of it.
    for prominence in (found, expected):
        prominence[prominence > largest - 1e-6] = 1
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_ridge_of_a_long_lesion_gives_one_instance(toys):
    """A heatmap whose summit is drawn out and wavy, as of a center that is known only roughly along the lesion."""
    at = toys.positions_mm((9, 9, 30), (1, 1, 1)) - (4, 4, 14.5)
    heatmap = np.exp(-(at[..., 0] ** 2 + at[..., 1] ** 2) / 8 - at[..., 2] ** 2 / 200)
    heatmap *= 1 - 0.03 * (1 + np.cos(at[..., 2] * 2 * np.pi / 6))
    foreground = heatmap > 0.5
    offsets_mm = np.zeros((3, 9, 9, 30), np.float32)
    parts = instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1, 1), window_mm=5.0)
    assert parts.max() > 1
    whole = instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1, 1), min_prominence=0.1)
    assert whole.max() == 1


def test_two_centers_three_mm_apart_fall_by_an_eighth(toys):
    at = toys.positions_mm((9, 9, 14), (1, 1, 1))
    gaussians = [np.exp(-((at - (4, 4, z)) ** 2).sum(axis=-1) / 8) for z in (5, 8)]
    heatmap = np.maximum(*gaussians).astype(np.float32)
    # Voxels 6 and 7 of the line are 1 mm from the nearer center, where a Gaussian of sigma 2 mm is exp(-1 / 8).
    assert relative_prominence(heatmap, peaks_of(heatmap), 0.5) == pytest.approx([1, 1 - np.exp(-1 / 8)], abs=1e-6)
