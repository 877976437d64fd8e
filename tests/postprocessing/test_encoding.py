"""The heads' targets against the definition, voxel by voxel, and against decoding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import balls

from nnunetv2_conflunet.postprocessing import instantiate_center_offset
from nnunetv2_conflunet.postprocessing.encoding import center_offset_targets, lowest_peak
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters


def obvious_targets(instances, spacing_mm, sigma_mm):
    """The definition, voxel by voxel: a Gaussian at each center of mass, their maximum, and vectors to it."""
    spacing = np.array(spacing_mm)
    positions = np.stack(np.meshgrid(*map(np.arange, instances.shape), indexing="ij")) * spacing.reshape(
        -1, *[1] * instances.ndim
    )
    heatmap = np.zeros(instances.shape)
    offsets = np.zeros((instances.ndim, *instances.shape))
    for i in np.unique(instances[instances > 0]):
        mine = instances == i
        center = positions[:, mine].mean(axis=1).reshape(-1, *[1] * instances.ndim)
        heatmap = np.maximum(heatmap, np.exp(-((positions - center) ** 2).sum(0) / (2 * sigma_mm**2)))
        offsets[:, mine] = (center - positions)[:, mine]
    return heatmap, offsets


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(
    "shape, spacing_mm",
    [((14, 15, 16), (1.0, 1.0, 1.0)), ((8, 20, 18), (3.0, 1.0, 0.7)), ((22, 19), (0.5, 1.2))],
)
def test_against_the_definition(shape, spacing_mm, dtype):
    rng = np.random.default_rng(1)
    centers = rng.uniform(3, np.array(shape) - 3, (4, len(shape)))
    instances = (balls(shape, centers, 3.5, spacing_mm) * 11).astype(dtype)
    before = instances.copy()
    heatmap, offsets_mm = center_offset_targets(instances, spacing_mm, sigma_mm=1.7)
    expected_heatmap, expected_offsets = obvious_targets(instances, spacing_mm, 1.7)
    assert heatmap.dtype == offsets_mm.dtype == np.float32
    np.testing.assert_allclose(heatmap, expected_heatmap, atol=1e-6)
    np.testing.assert_allclose(offsets_mm, expected_offsets, atol=1e-5)
    np.testing.assert_array_equal(instances, before)


def test_by_hand():
    instances = np.zeros((3, 3, 3), np.int16)
    instances[0, 0, 0] = instances[2, 0, 0] = 4
    heatmap, offsets_mm = center_offset_targets(instances, (2.0, 1.0, 1.0), sigma_mm=2.0)
    # The center of mass lies in the background voxel between, 2 mm from either.
    assert heatmap[1, 0, 0] == 1
    assert heatmap[0, 0, 0] == pytest.approx(np.exp(-0.5))
    assert offsets_mm[:, 0, 0, 0].tolist() == [2, 0, 0]
    assert offsets_mm[:, 2, 0, 0].tolist() == [-2, 0, 0]
    assert not offsets_mm[:, 1].any()


def test_no_instance():
    heatmap, offsets_mm = center_offset_targets(np.zeros((3, 4, 5), np.int16), (1, 1, 1))
    assert heatmap.shape == (3, 4, 5) and offsets_mm.shape == (3, 3, 4, 5)
    assert not heatmap.any() and not offsets_mm.any()


@pytest.mark.parametrize("spacing_mm", [(1, 1), (1, 0, 1), (1, -1, 1)])
def test_a_wrong_spacing_is_refused(spacing_mm):
    with pytest.raises(ValueError, match="spacing_mm must be 3 positive numbers"):
        center_offset_targets(np.zeros((3, 3, 3), int), spacing_mm)


def test_a_wrong_sigma_is_refused():
    with pytest.raises(ValueError, match="sigma_mm must be positive"):
        center_offset_targets(np.zeros((3, 3, 3), int), (1, 1, 1), sigma_mm=0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 1.0)]))
def test_perfect_heads_give_the_instances_back(seed, spacing_mm):
    """Targets as the network's output: touching balls come out as they went in."""
    rng = np.random.default_rng(seed)
    shape = (24, 26, 28)[: len(spacing_mm)]
    centers = []
    while len(centers) < 4:
        center = rng.uniform(5, np.array(shape) - 5)
        if all(np.linalg.norm((center - c) * spacing_mm) > 5.5 for c in centers):
            centers.append(center)
    instances = balls(shape, centers, 4.0, spacing_mm)
    heatmap, offsets_mm = center_offset_targets(instances, spacing_mm)
    found = instantiate_center_offset(instances > 0, heatmap, offsets_mm, spacing_mm)
    pairs = {(a, b) for a, b in zip(instances.ravel(), found.ravel(), strict=True)}
    assert len(pairs) == len(np.unique(instances)) == len(np.unique(found))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64])
def test_the_highest_id_of_every_dtype(dtype):
    highest = 1 if dtype is np.bool_ else np.iinfo(dtype).max
    instances = np.zeros((4, 4, 4), dtype)
    instances[1, 1, 1:3] = highest
    heatmap, offsets_mm = center_offset_targets(instances, (1, 1, 1))
    assert offsets_mm[:, 1, 1, 1].tolist() == [0, 0, 0.5]
    assert heatmap[1, 1, 1] == pytest.approx(np.exp(-0.25 / 8))


def test_fractional_ids_are_refused():
    with pytest.raises(ValueError, match="instances must be integers, got float32"):
        center_offset_targets(np.zeros((3, 3, 3), np.float32), (1, 1, 1))


def test_instances_at_the_border_are_not_known_to_be_whole():
    instances = np.zeros((5, 6, 7), np.int16)
    instances[2, 3, 3], instances[4, 3, 3], instances[2, 0, 3], instances[2, 3, 6] = 1, 2, 3, 4
    centers = InstanceCenters.of(instances).without_cut(instances)
    assert centers.ids.tolist() == [1]
    assert centers.voxels.tolist() == [[2, 3, 3]]


def test_instances_beside_unlabeled_voxels_are_not_known_to_be_whole():
    instances = np.zeros((5, 6, 9), np.int16)
    instances[2, 2, 2:4], instances[2, 2, 6] = 1, 2
    ignored = np.zeros(instances.shape, bool)
    ignored[:, :, 8] = True
    assert InstanceCenters.of(instances).without_cut(instances, ignored).ids.tolist() == [1, 2]
    ignored[:, :, 7] = True
    assert InstanceCenters.of(instances).without_cut(instances, ignored).ids.tolist() == [1]
    ignored[2, 1, 2] = True
    assert InstanceCenters.of(instances).without_cut(instances, ignored).ids.tolist() == []


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (6.0, 0.5, 0.5), (5.0, 1.0)])
def test_the_lowest_peak_is_that_of_a_center_between_voxels(spacing_mm):
    # A block of two voxels along every axis has its center between all of them.
    instances = np.zeros((6,) * len(spacing_mm), np.uint8)
    instances[(slice(2, 4),) * len(spacing_mm)] = 1
    heatmap, _ = center_offset_targets(instances, spacing_mm)
    assert lowest_peak(spacing_mm, 2.0) == pytest.approx(heatmap.max())


def test_the_training_offers_it_too():
    from nnunetv2_conflunet.trainers import targets

    assert targets.center_offset_targets is center_offset_targets
