"""Center-offset on scenes whose instances are known."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_center_offset

GRIDS = {
    "3D": ((26, 28, 30), (1.0, 1.0, 1.0)),
    "3D thick slices": ((10, 30, 32), (3.0, 1.0, 1.0)),
    "2D": ((48, 50), (1.0, 1.0)),
    "2D anisotropic": ((48, 30), (1.0, 2.0)),
}
grids = st.sampled_from(list(GRIDS.values()))
seeds = st.integers(0, 10**6)
few = settings(max_examples=15, deadline=None, derandomize=True)
UNFILTERED = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0)


def scene(toys, seed, grid, n=8):
    """Instances that the heads can separate: connected, centers of mass more than two voxels from each other."""
    shape, spacing = grid
    instances = toys.balls(seed, shape, spacing, n)
    ids = np.unique(instances[instances > 0])
    every = np.ones((3,) * len(shape))
    assume(all(ndimage.label(instances == i, every)[1] == 1 for i in ids))
    centers = [toys.positions_mm(shape, spacing)[instances == i].mean(axis=0) for i in ids]
    assume(
        all(np.linalg.norm(a - b) > 2 * np.linalg.norm(spacing) + 0.1 for a, b in itertools.combinations(centers, 2))
    )
    return instances


@few
@given(seed=seeds, grid=grids)
def test_perfect_heads_give_back_the_instances(toys, seed, grid):
    instances = scene(toys, seed, grid)
    heatmap, offsets_mm = toys.perfect_heads(instances, grid[1])
    assert toys.same_partition(instantiate_center_offset(instances > 0, heatmap, offsets_mm, grid[1]), instances)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_scenes_hold_touching_instances(toys, grid):
    # Otherwise the property above could be met by connected components.
    instances = toys.balls(1, *grid, 8)
    assert ndimage.label(instances > 0, np.ones((3,) * instances.ndim))[1] < len(np.unique(instances)) - 1


@few
@given(seed=seeds, grid=grids, noise_mm=st.sampled_from([0.0, 1.0]), data=st.data())
def test_flipped_and_transposed_input_gives_the_flipped_and_transposed_result(toys, seed, grid, noise_mm, data):
    shape, spacing = grid
    instances = scene(toys, seed, grid)
    heatmap, offsets_mm = toys.perfect_heads(instances, spacing)
    offsets_mm += np.random.default_rng(seed).normal(0, noise_mm, offsets_mm.shape).astype(np.float32)
    before = instantiate_center_offset(instances > 0, heatmap, offsets_mm, spacing)

    order = data.draw(st.permutations(range(len(shape))))
    flipped = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True))

    def turn(array):
        return np.flip(array.transpose(order), flipped)

    sign = np.where(np.isin(np.arange(len(shape)), flipped), -1, 1)
    turned_offsets = np.stack([sign[i] * turn(offsets_mm[order[i]]) for i in range(len(shape))])
    after = instantiate_center_offset(turn(instances > 0), turn(heatmap), turned_offsets, [spacing[i] for i in order])
    assert toys.same_partition(after, turn(before))


@few
@given(seed=seeds, grid=grids, noise_mm=st.sampled_from([0.0, 1.0]))
def test_a_far_lesion_changes_no_other(toys, seed, grid, noise_mm):
    shape, spacing = grid
    instances = scene(toys, seed, grid)
    heatmap, offsets_mm = toys.perfect_heads(instances, spacing, dropped=(1, 3))
    offsets_mm += np.random.default_rng(seed).normal(0, noise_mm, offsets_mm.shape).astype(np.float32)
    alone = instantiate_center_offset(instances > 0, heatmap, offsets_mm, spacing)

    margin = [(0, 0)] * (len(shape) - 1) + [(0, 30)]
    far = np.zeros([n + b for n, (_, b) in zip(shape, margin, strict=True)], np.int32)
    far[(slice(3, 6),) * (len(shape) - 1) + (slice(-5, -1),)] = 1
    far_heatmap, far_offsets = toys.perfect_heads(far, spacing)
    both = instantiate_center_offset(
        (np.pad(instances, margin) > 0) | (far > 0),
        np.maximum(np.pad(heatmap, margin), far_heatmap),
        np.pad(offsets_mm, [(0, 0), *margin]) + far_offsets,
        spacing,
    )
    assert both[far > 0].min() == both[far > 0].max() > 0
    assert toys.same_partition(both[..., : shape[-1]], alone)


def test_ids_count_from_one_in_the_order_of_first_voxels(toys):
    shape, spacing = GRIDS["3D"]
    instances = toys.balls(3, shape, spacing, 8)
    heatmap, offsets_mm = toys.perfect_heads(instances, spacing)
    found = instantiate_center_offset(instances > 0, heatmap, offsets_mm, spacing)
    assert found.dtype == np.int32
    values, first = np.unique(found[found > 0], return_index=True)
    assert np.array_equal(values, np.arange(1, len(values) + 1))
    assert np.array_equal(first, np.sort(first))


def test_matches_a_dense_search(toys):
    """Random heads, compared with an argmin over all centers; the foreground is one block, centers lie apart."""
    rng = np.random.default_rng(0)
    shape, spacing = (18, 20, 22), (2.0, 1.0, 1.5)
    foreground = np.ones(shape, bool)
    heatmap = np.zeros(shape, np.float32)
    centers = np.array([(3, 4, 5), (3, 15, 16), (14, 4, 16), (14, 15, 5), (9, 10, 11)])
    heatmap[tuple(centers.T)] = rng.uniform(0.2, 1, 5)
    at = toys.positions_mm(shape, spacing)
    centers_mm = centers * np.array(spacing)
    nearest = np.linalg.norm(at[..., None, :] - centers_mm, axis=-1).argmin(axis=-1)
    offsets_mm = np.moveaxis(0.3 * (centers_mm[nearest] - at) + rng.uniform(-0.05, 0.05, at.shape), -1, 0)
    expected = np.linalg.norm((at + np.moveaxis(offsets_mm, 0, -1))[..., None, :] - centers_mm, axis=-1).argmin(axis=-1)
    found = instantiate_center_offset(foreground, heatmap, offsets_mm.astype(np.float32), spacing)
    assert toys.same_partition(found, expected + 1)


def test_a_voxel_halfway_between_two_centers_goes_to_the_higher_one_and_then_to_the_first():
    foreground = np.zeros((7, 7), bool)
    foreground[np.arange(1, 6), np.arange(1, 6)] = True
    heatmap = np.zeros((7, 7), np.float32)
    offsets_mm = np.zeros((2, 7, 7), np.float32)
    for first, last, middle in ((0.5, 0.9, 2), (0.9, 0.5, 1), (0.7, 0.7, 1)):
        heatmap[1, 1], heatmap[5, 5] = first, last
        found = instantiate_center_offset(foreground, heatmap, offsets_mm, (1.0, 1.0))
        assert list(np.diagonal(found)) == [0, 1, 1, middle, 2, 2, 0]


def test_eight_centers_equally_near_leave_the_voxel_to_the_first():
    shape = (9, 9, 9)
    foreground = np.zeros(shape, bool)
    foreground[2:7, 2:7, 2:7] = True
    heatmap = np.zeros(shape, np.float32)
    for corner in itertools.product((2, 6), repeat=3):
        heatmap[corner] = 0.5
    found = instantiate_center_offset(foreground, heatmap, np.zeros((3, *shape)), (1.0, 1.0, 1.0))
    assert found.max() == 8
    assert found[4, 4, 4] == found[2, 2, 2] == 1
    assert (found == 1).sum() == 3**3 and (found == 8).sum() == 2**3


def test_a_concave_lesion_claims_a_center_outside_of_it(toys):
    ring = np.zeros((5, 21, 21), np.int32)
    radius = np.linalg.norm(toys.positions_mm((21, 21), (1, 1)) - 10, axis=-1)
    ring[1:4] = (radius > 5) & (radius < 9)
    heatmap, offsets_mm = toys.perfect_heads(ring, (1, 1, 1))
    assert not ring[2, 10, 10] and heatmap[2, 10, 10] == heatmap.max()
    result = instantiate(ring, (1, 1, 1), heatmap=heatmap, offsets_mm=offsets_mm)
    assert np.array_equal(result.instances, ring)
    assert result.center_score == pytest.approx([1.0])


@pytest.mark.parametrize("height", [0.0, 0.09])
def test_no_center_falls_back_to_connected_components(toys, height):
    shape, spacing = GRIDS["3D"]
    instances = toys.balls(5, shape, spacing, 8)
    result = instantiate(
        instances > 0, spacing, UNFILTERED, heatmap=np.full(shape, height), offsets_mm=np.zeros((3, *shape))
    )
    assert toys.same_partition(result.instances, ndimage.label(instances > 0, np.ones((3, 3, 3)))[0])
    assert np.isnan(result.center_score).all()
    assert result.report["n_instances_without_center"] == result.instances.max()


@few
@given(seed=seeds, grid=grids)
def test_dropped_centers_lose_no_voxel_and_no_isolated_lesion(toys, seed, grid):
    shape, spacing = grid
    instances = scene(toys, seed, grid, n=10)
    ids = np.unique(instances[instances > 0])
    dropped = np.random.default_rng(seed).choice(ids, max(1, len(ids) // 5), replace=False)
    heatmap, offsets_mm = toys.perfect_heads(instances, spacing, dropped=dropped)
    result = instantiate(instances > 0, spacing, UNFILTERED, heatmap=heatmap, offsets_mm=offsets_mm)
    found = result.instances
    assert np.array_equal(found > 0, instances > 0)
    every = np.ones((3,) * len(shape))
    assert all(ndimage.label(found == i, every)[1] == 1 for i in range(1, found.max() + 1))
    components, n = ndimage.label(instances > 0, every)
    for c in range(1, n + 1):
        here = np.unique(instances[components == c])
        with_center = np.setdiff1d(here, dropped)
        assert len(np.unique(found[components == c])) == max(1, len(with_center))
        if len(here) == 1 and here[0] in dropped:
            assert np.isnan(result.center_score[found[components == c][0] - 1])


@few
@given(seed=seeds, grid=grids)
def test_noisy_offsets_leave_connected_instances_that_cover_the_foreground(toys, seed, grid):
    shape, spacing = grid
    instances = toys.balls(seed, shape, spacing, 10)
    heatmap, offsets_mm = toys.perfect_heads(instances, spacing)
    offsets_mm += np.random.default_rng(seed).normal(0, 6, offsets_mm.shape)
    found = instantiate_center_offset(instances > 0, heatmap, offsets_mm, spacing)
    assert np.array_equal(found > 0, instances > 0)
    every = np.ones((3,) * len(shape))
    assert all(ndimage.label(found == i, every)[1] == 1 for i in range(1, found.max() + 1))
    # Noise makes no instance: there are at most as many as peaks and as components without one.
    assert found.max() <= len(np.unique(instances)) - 1


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_float16_heads_give_the_same_instances(toys, grid):
    shape, spacing = grid
    instances = toys.balls(8, shape, spacing, 8)
    heads = toys.perfect_heads(instances, spacing)
    half = (h.astype(np.float16) for h in heads)
    assert np.array_equal(
        instantiate_center_offset(instances > 0, *heads, spacing),
        instantiate_center_offset(instances > 0, *half, spacing),
    )


def test_float16_threshold_is_compared_in_float32():
    heatmap = np.zeros((5, 5), np.float16)
    heatmap[2, 2] = 0.1  # 0.09998 in float16
    foreground = np.ones((5, 5), bool)
    result = instantiate(foreground, (1, 1), UNFILTERED, heatmap=heatmap, offsets_mm=np.zeros((2, 5, 5), np.float16))
    assert result.report["n_centers"] == 0


def test_inputs_stay_as_they_were(toys):
    shape, spacing = GRIDS["3D"]
    instances = toys.balls(8, shape, spacing, 8)
    arrays = [instances, *toys.perfect_heads(instances, spacing)]
    for array in arrays:
        array.flags.writeable = False
    instantiate_center_offset(*arrays, spacing)


def test_top_k_keeps_exactly_the_highest_and_warns():
    foreground = np.zeros((5, 23), bool)
    foreground[2] = True
    heatmap = np.zeros((5, 23), np.float32)
    heatmap[2, [1, 6, 11, 16, 21]] = 0.5, 0.9, 0.5, 0.5, 0.7
    offsets_mm = np.zeros((2, 5, 23))
    with pytest.warns(UserWarning, match="5 centers found; top_k keeps the 3 highest"):
        found = instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1), top_k=3)
    # 0.9 and 0.7 stay, and of the three of 0.5 the first.
    assert found.max() == 3
    assert [found[2, x] for x in (1, 6, 11, 16, 21)] == [1, 2, 2, 3, 3]


def test_top_k_counts_the_centers_that_are_left():
    foreground, heatmap, offsets_mm = np.ones((5, 23), bool), np.zeros((5, 23), np.float32), np.zeros((2, 5, 23))
    # Hardly a dip between the first two; the offset at 14 leads to the one at 11.
    heatmap[2, [1, 2, 3, 11, 14, 21]] = 0.9, 0.89, 1.0, 0.8, 0.7, 0.5
    offsets_mm[1, 2, 14] = -2.5
    options = {"min_prominence": 0.1, "min_consistency": 1}
    with pytest.warns(UserWarning, match="3 centers found; top_k keeps the 2 highest"):
        found = instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1), top_k=2, **options)
    assert [found[2, x] for x in (1, 3, 11, 14, 21)] == [1, 1, 2, 2, 2]
    assert instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1), **options).max() == 3
    assert instantiate_center_offset(foreground, heatmap, offsets_mm, (1, 1)).max() == 5


@pytest.mark.filterwarnings("error")
def test_top_k_that_cuts_nothing_is_silent():
    heatmap = np.zeros((5, 9), np.float32)
    heatmap[2, [1, 7]] = 0.5
    found = instantiate_center_offset(np.ones((5, 9), bool), heatmap, np.zeros((2, 5, 9)), (1, 1), top_k=2)
    assert found.max() == 2


@pytest.mark.parametrize("axes", [2, 3])
def test_three_hundred_touching_instances(toys, axes):
    n, size = (20, 15) if axes == 2 else (10, 30), 5
    blocks = np.arange(1, 301).reshape(n if axes == 2 else (1, *n))
    instances = np.kron(blocks, np.ones((size,) * axes, int))
    heatmap, offsets_mm = toys.perfect_heads(instances, (1.0,) * axes)
    found = instantiate_center_offset(instances > 0, heatmap, offsets_mm, (1.0,) * axes)
    assert found.max() == 300
    assert toys.same_partition(found, instances)


def test_seventy_thousand_instances(toys):
    instances = np.zeros((84, 84, 80), np.int32)
    instances[::2, ::2, ::2] = np.arange(1, 42 * 42 * 40 + 1).reshape(42, 42, 40)
    assert instances.max() == 70560
    heatmap = (instances > 0).astype(np.float32)
    found = instantiate_center_offset(instances > 0, heatmap, np.zeros((3, *instances.shape)), (1, 1, 1))
    assert np.array_equal(found, instances)
