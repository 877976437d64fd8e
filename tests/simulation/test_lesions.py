"""The plan of a patient's lesions: counts, volumes, clusters, near-misses."""

import numpy as np
import pytest

from nnunetv2_conflunet.simulation.lesions import (
    MAX_UNIT_VOLUME_MM3,
    MIN_VOLUME_MM3,
    LesionStatistics,
    draw_plan,
    draw_volumes_mm3,
    random_shape,
)


def plans(patients: int = 400, **statistics: float) -> list:
    rng = np.random.default_rng(0)
    return [draw_plan(LesionStatistics(**statistics), rng) for _ in range(patients)]


def confluent_share(drawn: list) -> float:
    sizes = np.array([len(component.volumes_mm3) for plan in drawn for component in plan])
    return sizes[sizes > 1].sum() / sizes.sum()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.8, 1.0])
def test_share_of_confluent_lesions_is_the_one_asked_for(share: float):
    assert confluent_share(plans(confluent_share=share)) == pytest.approx(share, abs=0.01)


def test_share_holds_on_average_for_patients_with_few_lesions():
    # A patient with one lesion has none that touches; with two the share of 0.5 is none or both.
    drawn = plans(4000, mean_lesions=3, dispersion=1e6, confluent_share=0.5)
    several = [plan for plan in drawn if sum(len(c.volumes_mm3) for c in plan) > 1]
    assert confluent_share(several) == pytest.approx(0.5, abs=0.02)


def test_counts_have_the_mean_and_the_variance_of_the_negative_binomial():
    counts = np.array([sum(len(c.volumes_mm3) for c in plan) for plan in plans(3000, mean_lesions=58, dispersion=1.4)])
    assert counts.min() >= 1
    assert counts.mean() == pytest.approx(58, rel=0.05)
    assert counts.var() == pytest.approx(58 + 58**2 / 1.4, rel=0.15)


def test_near_misses_take_part_in_pairs():
    drawn = plans(mean_lesions=50, near_miss_share=0.2)
    lesions = sum(len(c.volumes_mm3) for plan in drawn for c in plan)
    moved = [c for plan in drawn for c in plan if c.near_miss]
    assert all(len(component.volumes_mm3) == 1 for component in moved)
    assert 2 * len(moved) / lesions == pytest.approx(0.2, abs=0.02)
    assert not any(plan[0].near_miss for plan in drawn), "the first component has no neighbor"


def test_volumes_are_log_normal_between_the_limits():
    volumes = draw_volumes_mm3(20000, np.random.default_rng(0))
    assert volumes.min() >= MIN_VOLUME_MM3
    assert volumes.max() <= MAX_UNIT_VOLUME_MM3
    # Quantiles of the log-normal distribution with mu 3.26 and sigma 1.43, left-truncated at 14 mm3.
    expected = [15.9, 26.0, 48.1, 103.7, 358.3]
    np.testing.assert_allclose(np.percentile(volumes, [5, 25, 50, 75, 95]), expected, rtol=0.05)


@pytest.mark.parametrize("roundness", [0.0, 0.5, 1.0])
def test_shapes_hold_about_their_volume_inside_level_one(roundness: float):
    rng = np.random.default_rng(1)
    axis = np.arange(-12, 12, 0.5) + 0.25
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).astype(np.float32)
    volumes = []
    for _ in range(10):
        shape = random_shape(rng, roundness=roundness)
        inside = shape.level(offsets, 300.0) < 1
        volumes.append(inside.sum() * 0.125)
        assert np.sqrt((offsets[inside] ** 2).sum(axis=-1)).max() < shape.reach_mm(300.0)
    assert 250 < np.median(volumes) < 450


def test_direction_is_followed():
    rng = np.random.default_rng(2)
    direction = np.array([0.0, 3.0, 4.0])
    cosines = [random_shape(rng, direction).rotation[:, 0] @ direction / 5 for _ in range(50)]
    assert np.mean(cosines) > 0.85
