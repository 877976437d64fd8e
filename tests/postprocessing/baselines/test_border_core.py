"""Cores and borders by hand, against a slow loop over voxels, and against nnU-Net's authors' own conversion."""

import numpy as np
import pytest
from acvl_utils.instance_segmentation.instance_as_semantic_seg import (
    convert_instanceseg_to_semantic_patched,
    convert_semantic_to_instanceseg,
)
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunetv2_conflunet.postprocessing import instantiate_border_core
from nnunetv2_conflunet.postprocessing.baselines.border_core import BorderCore, BorderCoreSettings
from nnunetv2_conflunet.utilities.errors import InputError

GRIDS = {
    "3D": ((12, 13, 14), (1.0, 1.0, 1.0)),
    "3D anisotropic": ((8, 15, 16), (3.0, 0.9, 1.2)),
    "2D": ((40, 44), (1.0, 1.0)),
    "2D anisotropic": ((30, 44), (1.5, 0.7)),
}
SETTINGS = {"1 mm": 1.0, "2 mm": 2.0}


def all_neighbors(ndim):
    return np.ones((3,) * ndim)


def slow_labels(instances, spacing_mm, thickness_mm):
    """Distances between all pairs of voxels; one lesion after another."""
    sampling = np.minimum(spacing_mm, thickness_mm)
    everywhere = np.argwhere(np.ones(instances.shape, bool)) * sampling
    labels = np.where(instances > 0, 2, 0)
    for label in np.unique(instances[instances > 0]):
        pieces, n = ndimage.label(instances == label, all_neighbors(instances.ndim))
        for i in range(1, n + 1):
            inside = pieces == i
            depth = cdist(np.argwhere(inside) * sampling, everywhere[~inside.ravel()]).min(axis=1)
            core = np.zeros(instances.shape, bool)
            core[inside] = depth > thickness_mm * 1.00001
            if not core.any():
                core[inside] = depth > depth.max() * 0.99999
                groups = ndimage.label(core)[0]
                core = groups == np.bincount(groups[groups > 0]).argmax()
            labels[core] = 1
    return labels


@pytest.mark.parametrize("thickness_mm", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_labels_match_a_slow_loop(toys, grid, thickness_mm):
    shape, spacing_mm = grid
    for seed in range(3):
        instances = toys.balls(seed, shape, spacing_mm, 12, pitch_mm=4.0)
        # Pieces of lesions, thin ones, and some that the image cuts.
        instances[np.random.default_rng(seed).random(shape) < 0.04 * seed] = 0
        made = BorderCore.of(instances, spacing_mm, BorderCoreSettings(thickness_mm))
        np.testing.assert_array_equal(made.labels, slow_labels(instances, spacing_mm, thickness_mm))


def test_a_bar_by_hand():
    # Two bars of five rows that share a side: the border is one voxel along every side, also along the shared one.
    instances = np.pad(np.repeat([[1] * 4 + [2] * 5], 5, axis=0), 1)
    inner = [2, 1, 1, 2, 2, 1, 1, 1, 2]
    expected = np.pad([[2] * 9, inner, inner, inner, [2] * 9], 1)
    made = BorderCore.of(instances, (1.0, 1.0))
    np.testing.assert_array_equal(made.labels, expected)
    assert (made.n_lesions, made.n_thin, made.n_split, made.deepest_mm) == (2, 0, 0, 3.0)


@pytest.mark.parametrize("thickness_mm, border", [(1.0, 1), (1.9, 1), (2.0, 2), (3.0, 3)])
def test_the_thickness_is_in_mm_and_at_least_one_voxel(thickness_mm, border):
    instances = np.zeros((9, 30), int)
    instances[1:8, 5:25] = 1
    labels = BorderCore.of(instances, (5.0, 1.0), BorderCoreSettings(thickness_mm)).labels
    # Along the first axis voxels are larger than any of these borders.
    assert labels[4, 5:25].tolist() == [2] * border + [1] * (20 - 2 * border) + [2] * border
    assert labels[:, 15].tolist() == [0, 2, 1, 1, 1, 1, 1, 2, 0]


def test_a_thin_lesion_keeps_its_innermost_voxels():
    instances = np.zeros((7, 12), int)
    instances[3, 1:8] = 1  # one voxel thin: all of it is innermost
    instances[1:6, 9:12] = 2  # cut by the image, so that the last column is the deepest
    made = BorderCore.of(instances, (1.0, 1.0), BorderCoreSettings(3.0))
    assert (made.labels[3, 1:8] == 1).all()
    assert np.argwhere(made.labels[:, 9:] == 1).tolist() == [[3, 2]]
    assert (made.n_lesions, made.n_thin, made.deepest_mm) == (2, 2, 3.0)


def test_a_core_in_several_pieces_is_counted():
    dumbbell = np.zeros((7, 17), int)
    dumbbell[1:6, 1:6] = dumbbell[1:6, 11:16] = dumbbell[3, 6:11] = 1
    assert BorderCore.of(dumbbell, (1.0, 1.0)).n_split == 1


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (1, 4, 5)])
def test_empty_and_full(shape):
    spacing_mm = (1.0,) * len(shape)
    assert not BorderCore.of(np.zeros(shape, int), spacing_mm).labels.any()
    # Nothing lies outside of it, so it has no border.
    assert (BorderCore.of(np.ones(shape, int), spacing_mm).labels == 1).all()
    assert not instantiate_border_core(np.zeros(shape, int), spacing_mm).any()
    assert (instantiate_border_core(np.ones(shape, int), spacing_mm) == 1).all()


@pytest.mark.parametrize("thickness_mm", [1, 2])
def test_labels_are_those_of_nnunets_authors(toys, thickness_mm):
    """acvl_utils erodes by a ball, which is the same where voxels are cubes; it leaves thin lesions without a core."""
    instances = np.pad(toys.balls(5, (24, 26, 28), (1.0, 1.0, 1.0), 20), 2)
    theirs = convert_instanceseg_to_semantic_patched(instances.astype(np.uint16), (1, 1, 1), thickness_mm)
    with_core = np.isin(instances, np.unique(instances[theirs == 1]))
    ours = BorderCore.of(instances, (1.0, 1.0, 1.0), BorderCoreSettings(thickness_mm)).labels
    assert np.count_nonzero(ours[with_core] == 1) > 100
    np.testing.assert_array_equal(ours[with_core], theirs[with_core])


def slow_instances(labels, spacing_mm):
    """All distances between the voxels of a component and its core voxels; pieces may be cut off from their core."""
    components, n = ndimage.label(labels > 0, all_neighbors(labels.ndim))
    cores = ndimage.label(labels == 1)[0]
    found = cores.copy()
    for i in range(1, n + 1):
        here, core = np.argwhere(components == i), np.argwhere((components == i) & (labels == 1))
        if not len(core):
            found[components == i] = found.max() + 1
            continue
        away = cdist(here * spacing_mm, core * spacing_mm)
        tied = away <= away.min(axis=1, keepdims=True) + 1e-6
        found[components == i] = np.where(tied, cores[tuple(core.T)], 10**9).min(axis=1)
    return found


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_instances_match_a_slow_loop(toys, grid):
    shape, spacing_mm = grid
    for seed in range(4):
        rng = np.random.default_rng(seed)
        labels = BorderCore.of(toys.balls(seed, shape, spacing_mm, 12, pitch_mm=4.0), spacing_mm).labels
        # A network's mistakes: lost cores, holes in borders.
        labels[(labels == 1) & (rng.random(shape) < 0.2 * seed)] = 2
        labels[(labels == 2) & (rng.random(shape) < 0.03 * seed)] = 1
        found, expected = instantiate_border_core(labels, spacing_mm), slow_instances(labels, spacing_mm)
        # Cut-off pieces join a neighbor; every other voxel is where the loop puts it.
        whole = np.zeros(shape, bool)
        for label in np.unique(expected[expected > 0]):
            pieces = ndimage.label(expected == label, all_neighbors(labels.ndim))[0]
            whole |= pieces == np.bincount(pieces[pieces > 0]).argmax()
        assert np.count_nonzero((labels > 0) & ~whole) < 0.02 * np.count_nonzero(labels)
        assert toys.same_partition(np.where(whole, found, 0), np.where(whole, expected, 0))
        assert found[labels > 0].all() and not found[labels == 0].any()
        check_instances(found)


def check_instances(found):
    """Connected, and numbered in the order of their first voxels."""
    ids, first = np.unique(found[found > 0], return_index=True)
    assert ids.tolist() == list(range(1, len(ids) + 1)) and (np.diff(first) > 0).all()
    assert all(ndimage.label(found == i, all_neighbors(found.ndim))[1] == 1 for i in ids)


def test_cores_are_found_as_nnunets_authors_find_them(toys):
    """acvl_utils connects everything by faces and grows cores voxel by voxel, so borders may differ a little."""
    spacing_mm = (1.0, 1.0, 1.0)
    labels = BorderCore.of(toys.balls(3, (24, 26, 28), spacing_mm, 20), spacing_mm).labels
    theirs = convert_semantic_to_instanceseg(labels.copy(), spacing_mm, 0, 0)
    ours = instantiate_border_core(labels, spacing_mm, connectivity=6)
    is_core = labels == 1
    assert toys.same_partition(np.where(is_core, ours, 0), np.where(is_core, theirs, 0))
    assert ours.max() == len(np.unique(theirs)) - 1


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_touching_lesions_come_back_apart(toys, grid):
    shape, spacing_mm = grid
    instances = toys.balls(1, shape, spacing_mm, 12, pitch_mm=4.0)
    made = BorderCore.of(instances, spacing_mm)
    found = instantiate_border_core(made.labels, spacing_mm)
    assert ndimage.label(instances > 0, all_neighbors(instances.ndim))[1] < found.max()
    # Thin ones may grow together.
    assert made.n_lesions - made.n_thin <= found.max() <= made.n_lesions
    assert made.n_thin <= 4 and made.n_split == 0
    # Border voxels may change sides, but the core of no lesion that has a border does.
    core = made.labels == 1
    # A border of 1 mm is one voxel on these grids.
    lesions = range(1, instances.max() + 1)
    thick = [i for i in lesions if ndimage.binary_erosion(instances == i, border_value=1).any()]
    core &= np.isin(instances, thick)
    pairs = np.unique(np.stack([found[core], instances[core]]), axis=1)
    assert len(pairs[0]) == len(np.unique(pairs[0])) == len(thick) > 1


def test_cores_that_touch_at_corners_stay_apart():
    # The boundary between two lesions along a diagonal of the cube.
    steps = np.indices((9, 9, 9)).sum(axis=0)
    instances = np.pad(np.where(steps <= 12, 1, 2), 1)
    labels = BorderCore.of(instances, (1.0, 1.0, 1.0)).labels
    assert ndimage.label(labels == 1, np.ones((3, 3, 3)))[1] == 1
    assert instantiate_border_core(labels, (1.0, 1.0, 1.0)).max() == 2


def test_borders_by_hand():
    labels = np.array([[1, 2, 2, 2, 1, 0, 2, 2, 0, 1]])
    # The middle is as near to either core; the component without a core is one instance.
    assert instantiate_border_core(labels, (1.0, 1.0)).tolist() == [[1, 1, 1, 2, 2, 0, 3, 3, 0, 4]]


def test_distances_are_in_mm():
    labels = np.full((4, 4), 2)
    labels[0, 0] = labels[3, 3] = 1
    # Position (0, 2): 2 columns from the first core, 3 rows and 1 column from the second.
    assert instantiate_border_core(labels, (1.0, 1.0))[0, 2] == 1
    assert instantiate_border_core(labels, (1.0, 4.0))[0, 2] == 2


@pytest.mark.parametrize("thickness_mm", [0, -1.0, np.nan, np.inf, "1"])
def test_a_thickness_that_is_not_possible(thickness_mm):
    with pytest.raises(InputError, match=r"thickness_mm is .* it must be a positive number"):
        BorderCoreSettings(thickness_mm)


def test_labels_of_something_else_are_refused():
    with pytest.raises(
        InputError, match=r"labels holds other values than 0 \(background\), 1 \(core\) and 2 \(border\)\."
    ):
        instantiate_border_core(np.array([[0, 3]]), (1.0, 1.0))
