"""Lesions on the grid: sizes, contacts and gaps, in plain tissue without any anatomy."""

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.simulation.growth import grow
from nnunetv2_conflunet.simulation.lesions import Component, LesionStatistics, draw_plan, random_shape
from nnunetv2_conflunet.simulation.placement import Tissue, place_lesions
from nnunetv2_conflunet.simulation.statistics import measure_case

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.8, 0.7, 1.3)]


def plain_tissue(spacing_mm: tuple[float, ...], size_mm: float = 60.0) -> Tissue:
    shape = [round(size_mm / d) for d in spacing_mm]
    return Tissue(
        spacing_mm=spacing_mm,
        allowed=np.ones(shape, bool),
        densities=(np.ones(shape, np.float32),) * 2,
    )


def extents_mm(instances: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    boxes = ndimage.find_objects(instances)
    return np.array([[(s.stop - s.start) * d for s, d in zip(box, spacing_mm, strict=True)] for box in boxes])


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_every_lesion_is_connected_and_large_enough(spacing_mm: tuple[float, ...]):
    rng = np.random.default_rng(0)
    plan = draw_plan(LesionStatistics(mean_lesions=25, dispersion=1e6, confluent_share=0.4), rng)
    instances = place_lesions(plan, plain_tissue(spacing_mm), rng).instances
    assert instances.max() > 10
    for label in range(1, instances.max() + 1):
        assert cc3d.connected_components(instances == label, connectivity=6).max() == 1
    assert np.bincount(instances.ravel())[1:].min() * np.prod(spacing_mm) >= 14 - 1e-6
    assert extents_mm(instances, spacing_mm).min() >= 3 - 1e-6


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_components_of_the_plan_are_those_of_the_map(spacing_mm: tuple[float, ...]):
    rng = np.random.default_rng(1)
    plan = [Component((120.0, 60.0, 60.0)), Component((80.0,)), Component((50.0,), near_miss=True), Component((20.0,))]
    placement = place_lesions(plan, plain_tissue(spacing_mm), rng)
    assert placement.missed == 0
    assert placement.instances.max() == len(placement.units) == 6
    for connectivity in (6, 18, 26):
        components = cc3d.connected_components(placement.instances > 0, connectivity=connectivity)
        assert components.max() == 4, "three units touch by faces, the other lesions nothing"
        assert len(np.unique(components[np.isin(placement.instances, (1, 2, 3))])) == 1


@pytest.mark.parametrize("spacing_mm", SPACINGS)
def test_near_misses_have_a_gap_of_one_voxel(spacing_mm: tuple[float, ...]):
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(5):
        plan = [Component((90.0,)), Component((45.0,), near_miss=True)]
        instances = place_lesions(plan, plain_tissue(spacing_mm, 40.0), rng).instances
        first, second = instances == 1, instances == 2
        beside = ndimage.binary_dilation(first, np.ones((3, 3, 3)))
        assert not (beside & second).any(), "they never touch"
        found += bool((ndimage.binary_dilation(beside, np.ones((3, 3, 3))) & second).any())
    assert found == 5


def test_volumes_are_reached():
    rng = np.random.default_rng(3)
    tissue = plain_tissue((1.0, 1.0, 1.0))
    for volume in (14.0, 40.0, 200.0, 1500.0):
        placement = place_lesions([Component((volume,))], tissue, rng)
        assert placement.instances.astype(bool).sum() == pytest.approx(volume, rel=0.2, abs=6)


def test_a_lesion_without_room_is_counted_and_leaves_no_trace():
    tissue = plain_tissue((1.0, 1.0, 1.0), 12.0)
    placement = place_lesions([Component((1500.0, 1500.0))], tissue, np.random.default_rng(0))
    assert placement.missed == 2
    assert not placement.units
    assert not placement.instances.any()


def test_a_cluster_without_room_for_its_second_unit_is_taken_back():
    tissue = plain_tissue((1.0, 1.0, 1.0), 11.0)
    placement = place_lesions([Component((450.0, 450.0)), Component((100.0,))], tissue, np.random.default_rng(0))
    assert placement.missed == 2
    assert np.unique(placement.instances).tolist() == [0, 1]
    assert (placement.instances == 1).sum() == pytest.approx(100, abs=15)


def test_lesions_keep_to_allowed_voxels():
    tissue = plain_tissue((1.0, 1.0, 1.0), 40.0)
    tissue.allowed[:, :20] = False
    placement = place_lesions([Component((100.0,))] * 5, tissue, np.random.default_rng(5))
    assert placement.instances.any()
    assert not placement.instances[:, :20].any()
    assert not any(unit.coverage[~tissue.allowed[unit.box]].any() for unit in placement.units)


def test_member_voxels_are_those_filled_by_more_than_half():
    tissue = plain_tissue((1.0, 1.0, 1.0), 40.0)
    shape = random_shape(np.random.default_rng(6))
    unit = grow(shape, 200.0, np.full(3, 20.0), tissue.spacing_mm, tissue.allowed, tissue.allowed)
    assert unit is not None
    assert unit.coverage[unit.member].min() >= 0.5
    assert unit.coverage[~unit.member].max() <= 0.5
    assert unit.coverage[~unit.member].max() > 0, "partial volume at the border"
    assert unit.depth[unit.member].min() < 0.3 < 0.9 < unit.depth[~unit.member & (unit.coverage == 0)].min()


def test_an_off_grid_center_gives_no_lesion():
    tissue = plain_tissue((1.0, 1.0, 1.0), 20.0)
    shape = random_shape(np.random.default_rng(6))
    assert grow(shape, 50.0, np.full(3, -90.0), tissue.spacing_mm, tissue.allowed, tissue.allowed) is None


def test_measured_figures_of_known_boxes():
    instances = np.zeros((20, 20, 20), np.int32)
    instances[2:5, 2:5, 2:5] = 1
    instances[5:8, 2:5, 2:5] = 2  # touches the first
    instances[9:12, 2:5, 2:5] = 3  # one voxel beside the second
    instances[15:18, 15:18, 15:19] = 4
    measured = measure_case(instances, (2.0, 1.0, 1.0))
    np.testing.assert_allclose(measured.volumes_mm3, [54, 54, 54, 72])
    assert sorted(measured.component_volumes_mm3) == [54, 72, 108]
    assert measured.confluent == 2
    assert measured.near_misses == 2
    assert measured.smallest_extent_mm == 3.0


def test_ids_may_have_gaps():
    numbered = np.zeros((9, 9, 9), np.int32)
    numbered[1:3, 1:4, 1:4], numbered[3:5, 1:4, 1:4], numbered[6:8, 1:4, 1:3] = 1, 2, 3
    measured = measure_case(np.choose(numbered, [0, 3, 70_000, 9]), (1.0, 1.0, 1.0))
    # In the order of the ids.
    assert measured.volumes_mm3.tolist() == [18.0, 12.0, 18.0]
    assert (measured.confluent, measured.near_misses, measured.smallest_extent_mm) == (2, 2, 2.0)


def test_measured_figures_without_lesions():
    measured = measure_case(np.zeros((5, 5, 5), np.int32), (1.0, 1.0, 1.0))
    assert len(measured.volumes_mm3) == len(measured.component_volumes_mm3) == measured.confluent == 0
    assert np.isnan(measured.smallest_extent_mm)
