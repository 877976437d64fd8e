"""Watershed of the distance transform: by hand, and against a slow flood of the whole image."""

import heapq

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_cc, instantiate_watershed

GRIDS = {
    "3D": ((12, 16, 18), (1.0, 1.0, 1.0)),
    "3D anisotropic": ((8, 18, 16), (2.0, 0.9, 1.1)),
    "2D": ((40, 44), (1.0, 1.0)),
    "2D anisotropic": ((30, 44), (1.5, 0.7)),
}
RANK = {6: 1, 18: 2, 26: 3}


def structure(ndim, connectivity):
    return ndimage.generate_binary_structure(ndim, min(RANK[connectivity], ndim))


def slow_centers(depth, h_mm, neighbors):
    """Connected sets that are at most h below a maximum, and beside which nothing within reach is higher."""
    centers = np.zeros(depth.shape, int)
    for peak in np.unique(depth[depth > h_mm]):
        above, n = ndimage.label(depth >= peak - h_mm, neighbors)
        for i in range(1, n + 1):
            if depth[above == i].max() == peak:
                centers[above == i] = centers.max() + 1
    return centers


def slow_flood(depth, centers, neighbors):
    """The deepest voxel first, of equally deep ones the one that was reached first; near neighbors before far ones."""
    steps = np.argwhere(neighbors) - 1
    steps = steps[np.argsort(np.abs(steps).sum(axis=1), kind="stable")][1:]
    found, reached = np.pad(centers, 1), 0
    depth = np.pad(depth, 1)
    queue = [(-depth[tuple(at)], 0, tuple(at)) for at in np.argwhere(found)]
    heapq.heapify(queue)
    while queue:
        _, _, at = heapq.heappop(queue)
        for other in map(tuple, steps + at):
            if depth[other] > 0 and not found[other]:
                found[other], reached = found[at], reached + 1
                heapq.heappush(queue, (-depth[other], reached, other))
    return found[(slice(1, -1),) * found.ndim]


def slow_watershed(mask, spacing_mm, h_mm, connectivity):
    neighbors = structure(mask.ndim, connectivity)
    components, n = ndimage.label(mask, neighbors)
    found = np.zeros(mask.shape, int)
    for i in range(1, n + 1):
        depth = ndimage.distance_transform_edt(components == i, sampling=spacing_mm)
        centers = slow_centers(depth, h_mm, neighbors)
        flooded = slow_flood(depth, centers, neighbors) if centers.any() else components == i
        found[components == i] = found.max() + flooded[components == i]
    return found


def n_voxels_elsewhere(found, expected):
    """Voxels outside of the instance of `expected` that an instance of `found` overlaps most."""
    pairs, n = np.unique(np.stack([found[found > 0], expected[found > 0]]), axis=1, return_counts=True)
    return n.sum() - sum(n[pairs[0] == i].max() for i in np.unique(pairs[0]))


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize("h_mm", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_matches_a_slow_flood(toys, grid, h_mm, connectivity):
    shape, spacing_mm = grid
    n_divided = 0
    for seed in range(3):
        mask = toys.balls(seed, shape, spacing_mm, 12, pitch_mm=4.0) > 0
        mask |= np.random.default_rng(seed).random(shape) < 0.02 * seed
        found = instantiate_watershed(mask, spacing_mm, h_maxima_mm=h_mm, connectivity=connectivity)
        expected = slow_watershed(mask, spacing_mm, h_mm, connectivity)
        assert found.max() == len(np.unique(expected)) - 1
        # The order of equally deep voxels in scikit-image's queue is its own: some voxels between basins change sides.
        assert n_voxels_elsewhere(found, expected) <= 0.03 * mask.sum()
        ids, first = np.unique(found[found > 0], return_index=True)
        assert ids.tolist() == list(range(1, len(ids) + 1)) and (np.diff(first) > 0).all()
        assert all(ndimage.label(found == i, structure(len(shape), connectivity))[1] == 1 for i in ids)
        n_divided += found.max() - instantiate_cc(mask, connectivity=connectivity).max()
    assert n_divided > 0 or h_mm == 1


def two_balls(distance_mm, spacing_mm, radius_mm=5.0, shape_mm=(13, 13, 30)):
    """Balls around two points on the last axis, and which one each voxel is nearer to."""
    shape = np.ceil(np.array(shape_mm[-len(spacing_mm) :]) / spacing_mm).astype(int)
    at = np.indices(shape) * np.reshape(spacing_mm, (-1, *(1,) * len(shape)))
    middle = [6.0] * (len(shape) - 1)
    away = [
        np.sqrt(sum((axis - x) ** 2 for axis, x in zip(at, [*middle, 15 + side * distance_mm / 2], strict=True)))
        for side in (-1, 1)
    ]
    return (np.minimum(*away) <= radius_mm), np.where(away[0] < away[1], 1, 2)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 0.5), (1.0, 1.0), (0.5, 1.0)])
def test_two_balls_are_divided_where_they_meet(spacing_mm):
    # Between balls of 5 mm whose centers are 8 mm apart, the depth falls from 5 to 3 mm.
    mask, nearest = two_balls(8.0, spacing_mm)
    found = instantiate_watershed(mask, spacing_mm)
    assert found.max() == 2
    # The layer of voxels in the middle may go to either.
    at_mm = np.argwhere(mask & (found != nearest))[:, -1] * spacing_mm[-1]
    assert (np.abs(at_mm - 15) <= spacing_mm[-1]).all()
    assert instantiate_watershed(mask, spacing_mm, h_maxima_mm=2.6).max() == 1


def test_voxels_are_measured_in_mm():
    """The same voxels are two balls, or, with thin slices, two rods side by side that are hardly narrower between."""
    mask, _ = two_balls(8.0, (1.0, 1.0, 1.0))
    assert instantiate_watershed(mask, (1.0, 1.0, 1.0)).max() == 2
    assert instantiate_watershed(mask, (0.1, 1.0, 1.0)).max() == 1


def test_equal_maxima_with_a_small_dip_between_are_one_center():
    # The ridge of a tapering bar rises and falls with its width, by less than h.
    bar = np.zeros((9, 21), bool)
    bar[2:7] = True
    bar[1, 3:8] = bar[7, 3:8] = bar[1, 13:18] = bar[7, 13:18] = True
    assert instantiate_watershed(bar, (1.0, 1.0), h_maxima_mm=1.1).max() == 1
    assert instantiate_watershed(bar, (1.0, 1.0), h_maxima_mm=0.9).max() == 2


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_a_lesion_of_one_voxel_thickness_is_one_instance(spacing_mm):
    thin = np.zeros((5, 9, 12), bool)
    thin[2, 2:8, 3:10] = thin[2, 4, 1:11] = True
    assert instantiate_watershed(thin, spacing_mm)[thin].tolist() == [1] * thin.sum()


def test_what_the_image_cuts_is_as_deep_as_the_rest_of_it_shows():
    # Half a ball at the border of the image: the deepest voxel lies on the border, and is one center.
    mask, _ = two_balls(0.0, (1.0, 1.0))
    half = mask[6:]
    assert instantiate_watershed(half, (1.0, 1.0), h_maxima_mm=4.5)[half].tolist() == [1] * half.sum()


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (1, 4, 5)])
def test_empty_full_and_a_single_voxel(shape):
    spacing_mm = (1.0,) * len(shape)
    assert not instantiate_watershed(np.zeros(shape, bool), spacing_mm).any()
    assert (instantiate_watershed(np.ones(shape, bool), spacing_mm) == 1).all()
    one = np.zeros(shape, bool)
    one[(-1, 2, 3)[: len(shape)]] = True
    assert instantiate_watershed(one, spacing_mm)[one].tolist() == [1]


def test_the_report_counts_centers_and_components_without():
    mask, _ = two_balls(8.0, (1.0, 1.0))
    mask[0, 0] = True
    made = instantiate(mask, (1.0, 1.0), InstantiationSettings(method="watershed", h_maxima_mm=1.0, min_extent_mm=0))
    counts = [made.report[name] for name in ("n_centers", "n_instances", "n_instances_without_center")]
    assert counts == [2, 3, 1]
    assert np.isnan(made.center_score).all()
