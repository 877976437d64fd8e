"""The choice among the points of a grid by hand-made scores."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.tuning import Grid
from nnunetv2_conflunet.tuning.choice import choose, difference_interval
from nnunetv2_conflunet.tuning.search import order_of_preference

NAN = np.nan


def test_a_point_that_is_better_for_every_patient_is_chosen():
    scores = np.array([[0.3, 0.4, 0.5], [0.2, 0.3, 0.3], [0.6, 0.7, 0.8]] * 3)
    choice = choose(scores, 0, [0, 1, 2])
    assert (choice.best, choice.chosen) == (2, 2)
    assert choice.difference == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    assert 0 < choice.low < choice.difference < choice.high
    # Whoever is held out, the others prefer the last point.
    assert choice.held_out == pytest.approx((0.5 + 0.3 + 0.8) / 3)


def test_the_same_gain_for_all_patients_has_no_noise():
    choice = choose(np.array([[0.3, 0.4], [0.2, 0.3], [0.6, 0.7]]), 0, [0, 1])
    assert choice.chosen == 1
    assert (choice.low, choice.high) == pytest.approx((0.1, 0.1))


def test_the_default_stays_where_the_difference_is_noise():
    choice = choose(np.array([[0.3, 0.5], [0.2, 0.4], [0.6, 0.5]]), 0, [0, 1])
    assert (choice.best, choice.chosen) == (1, 0)
    assert choice.difference == pytest.approx(0.1)
    assert choice.low < 0 < choice.high


def test_one_patient_proves_nothing():
    choice = choose(np.array([[0.3, 0.9]]), 0, [0, 1])
    assert (choice.best, choice.chosen) == (1, 0)
    assert np.isnan([choice.low, choice.high]).all()
    assert choice.held_out == 0.3


@pytest.mark.parametrize("others", [[[NAN, NAN, NAN]], [[NAN, NAN, 0.0]] * 5])
def test_neither_does_one_patient_beside_others_that_are_undefined(others):
    """Patients without lesions in which nothing is found."""
    choice = choose(np.array([[0.3, 0.9, 0.1], *others]), 0, [0, 1, 2])
    assert (choice.best, choice.chosen) == (1, 0)
    assert np.isnan([choice.low, choice.high]).all()


def test_equal_points_are_taken_in_the_order_of_preference():
    scores = np.array([[0.3, 0.6, 0.6], [0.1, 0.7, 0.7 + 1e-15]])
    assert choose(scores, 0, [0, 1, 2]).best == 1
    assert choose(scores, 0, [0, 2, 1]).best == 2
    assert choose(scores[:, [0, 0]], 0, [0, 1]).best == 0


def test_fewer_changes_come_first_then_the_order_of_the_grid():
    default = InstantiationSettings()
    grid = Grid((0.05, 0.1), (3,), (0, 0.1), min_consistency=(0,), min_volume_mm3=(14,), min_extent_mm=(3, 4))
    points = grid.points(default)
    ordered = [(i.heatmap_threshold, i.min_prominence, i.min_extent_mm) for i in points]
    assert ordered == list(product((0.05, 0.1), (0, 0.1), (3, 4)))
    assert [ordered[i] for i in order_of_preference(points, default)] == [
        *[(0.1, 0, 3)],
        *[(0.05, 0, 3), (0.1, 0, 4), (0.1, 0.1, 3)],
        *[(0.05, 0, 4), (0.05, 0.1, 3), (0.1, 0.1, 4)],
        *[(0.05, 0.1, 4)],
    ]


def test_a_grid_holds_the_default_and_no_value_twice():
    default = InstantiationSettings(heatmap_threshold=0.13, window_mm=5)
    one_value = dict.fromkeys(("min_prominence", "min_consistency"), (0,))
    grid = Grid((0.3, 0.1, 0.3), window_mm=(5,), **one_value, min_volume_mm3=(20,), min_extent_mm=(3,))
    around = grid.around(default)
    assert (around.heatmap_threshold, around.window_mm, around.min_volume_mm3) == ([0.1, 0.13, 0.3], [5], [14, 20])
    assert default in around.points(default) and len(around.points(default)) == 6


@pytest.mark.parametrize(
    "chosen, ends",
    [
        ({}, []),
        ({"heatmap_threshold": 0.2}, []),
        ({"heatmap_threshold": 0.05, "window_mm": 7.0}, ["heatmap_threshold", "window_mm"]),
        ({"heatmap_threshold": 0.6, "min_volume_mm3": 20.0}, ["heatmap_threshold"]),
    ],
)
def test_values_at_the_end_of_their_lists_are_named(chosen, ends):
    assert Grid().ends_reached(InstantiationSettings(**chosen), InstantiationSettings()) == ends


def test_nothing_lies_below_zero():
    default = InstantiationSettings(min_prominence=0.1)
    assert Grid().ends_reached(InstantiationSettings(min_prominence=0.0), default) == []
    assert Grid().ends_reached(InstantiationSettings(min_prominence=0.2), default) == ["min_prominence"]


def test_patients_without_lesions_count_where_something_is_found_in_them():
    # Half of the patients have no lesions; only the default finds any in them. It is as good for the others.
    scores = np.array([[0.5, 0.5], [0.6, 0.6]] * 6 + [[0.0, NAN]] * 12)
    choice = choose(scores, 0, [0, 1])
    assert choice.difference == pytest.approx(0.55 - 0.275)
    assert (choice.best, choice.chosen) == (1, 1)


def test_held_out_patients_do_not_choose_for_themselves():
    # Each patient has a point that suits it alone; for the others the default is best.
    scores = np.full((4, 5), 0.5)
    scores[np.arange(4), np.arange(4) + 1] = 1.0
    scores[:, 1:] -= 0.3
    choice = choose(scores, 0, list(range(5)))
    assert choice.held_out == pytest.approx(0.5)


def test_the_interval_is_that_of_all_draws():
    scores = np.array([[0.5, 0.9, 0.4], [0.2, 0.3, 0.6], [0.6, 0.4, 0.3], [0.1, 0.3, 0.2]])
    differences = scores - scores[:, :1]
    mean, error = differences.mean(axis=0), differences.std(axis=0, ddof=1) / 2
    largest = [
        max(abs(differences[list(draw), k].mean() - mean[k]) / error[k] for k in (1, 2))
        for draw in product(range(4), repeat=4)
    ]
    # The 97.5 % quantiles of Student's t with three degrees of freedom and of the normal distribution.
    half = np.quantile(largest, 0.95) * 3.1824 / 1.9600 * np.sqrt(4 / 3) * error[1]
    expected = (mean[1] - half, mean[1] + half)
    assert difference_interval(scores, 1, 0) == pytest.approx(expected, abs=0.02)


def test_one_other_point_has_about_the_interval_of_the_t_test():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, (40, 2))
    expected = stats.ttest_rel(scores[:, 1], scores[:, 0]).confidence_interval()
    interval = difference_interval(scores, 1, 0)
    assert interval == pytest.approx((expected.low, expected.high), abs=0.02)
    assert difference_interval(scores, 1, 0) == interval
    assert difference_interval(scores, 1, 0, seed=1) != interval


def test_the_size_of_a_piece_of_the_draws_plays_no_part(monkeypatch):
    scores = np.random.default_rng(1).uniform(0, 1, (12, 5))
    interval = difference_interval(scores, 1, 0)
    monkeypatch.setattr("nnunetv2_conflunet.tuning.choice.CHUNK_VALUES", 1000)
    assert difference_interval(scores, 1, 0) == pytest.approx(interval, abs=1e-12)


def test_undefined_values_count_as_in_an_exact_bootstrap():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, (200, 2))
    scores[rng.random((200, 2)) < 0.3] = NAN
    drawn = rng.integers(0, 200, (3000, 200))
    differences = np.nanmean(scores[drawn, 1], axis=1) - np.nanmean(scores[drawn, 0], axis=1)
    low, high = difference_interval(scores, 1, 0)
    assert high - low == pytest.approx(2 * 1.96 * differences.std(), rel=0.05)


@pytest.mark.parametrize("n_undefined", [1, 5, 20])
@pytest.mark.parametrize("n_defined", [2, 3, 5, 8])
def test_patients_that_are_undefined_everywhere_make_the_others_no_surer(n_defined, n_undefined):
    scores = np.random.default_rng(0).random((n_defined, 6))
    alone = np.subtract(*difference_interval(scores, 1, 0))
    among = np.subtract(*difference_interval(np.vstack([scores, np.full((n_undefined, 6), NAN)]), 1, 0))
    # Both are negative; the draws differ.
    assert among <= 0.97 * alone


def test_noise_alone_is_seldom_taken_for_better():
    # Twelve patients, thirty points that differ from the default by chance only; 5 % of the choices may be tuned.
    rng = np.random.default_rng(0)
    tuned = 0
    for _ in range(60):
        scores = rng.uniform(0.2, 0.7, (12, 1)) + rng.normal(0, 0.05, (12, 30))
        tuned += choose(scores, 0, list(range(30))).chosen != 0
    # Of 60 choices 3 in the mean; 8 or more would come with a probability of 1 %.
    assert tuned < 8


def test_the_grid_of_planes_has_areas_instead_of_volumes():
    default = InstantiationSettings()
    grid = Grid.of_planes(0.25).around(default)
    assert grid.min_volume_mm3 == [14]
    # None, a speck of 3 x 3, and 20 and 40 pixels of 0.25 mm2.
    assert grid.min_area_mm2 == [0, 2.25, 5, 10]
    assert Grid().around(default).min_area_mm2 == [0]
