"""The lesions that can be pasted."""

import numpy as np
import pytest
from pasting import LESION_VALUE, LEVEL
from scipy.ndimage import label

from nnunetv2_conflunet.preprocessing.lesion_crops import LESION, NEITHER
from nnunetv2_conflunet.trainers.pasting.lesions import enlarged


def test_the_store_counts_what_it_has(make_store):
    store = make_store(n_lesions=7)
    assert (store.n_lesions, store.most_lesions) == (2, 7)
    assert store.describe() == "2 lesions of 1 cases can be pasted"


def test_a_store_without_lesions_says_so(make_store):
    instances = np.zeros((20, 20, 20), int)
    instances[8, 8, 8], instances[8, 8, 9] = 1, 2
    store = make_store(instances)
    assert store.n_lesions == 0
    assert "nothing is pasted" in store.describe()


def test_every_lesion_is_drawn_in_every_orientation(make_store):
    instances = np.zeros((20, 20, 20), int)
    instances[8, 8, 8:12] = instances[9, 8, 8] = 1
    store = make_store(instances)
    rng = np.random.default_rng(0)
    seen = {store.draw(3, rng).inside.tobytes() for _ in range(60)}
    # It lies in a plane, so that one of the three flips changes nothing.
    assert len(seen) == 4
    lesion = store.draw(3, rng)
    np.testing.assert_allclose(lesion.pixels[:, lesion.inside].T, [LESION_VALUE] * 5)
    np.testing.assert_allclose(lesion.level, LEVEL)


def test_in_two_dimensions_a_slice_of_the_lesion_is_drawn(make_store):
    instances = np.zeros((20, 20, 20), int)
    instances[4, 8, 8:10] = instances[5, 8, 8:14] = 1
    store = make_store(instances, spacing_mm=(1.0, 1.0))
    rng = np.random.default_rng(0)
    sizes = [len(store.draw(2, rng).voxels) for _ in range(200)]
    assert set(sizes) == {2, 6}
    # A slice is as likely as it has voxels of the lesion.
    assert 0.65 < sizes.count(6) / 200 < 0.85


def test_usual_are_intensities_like_those_around_the_lesions(make_store):
    store = make_store()
    level = np.array(LEVEL)[:, None]
    assert store.is_usual(np.repeat(level, 10, axis=1))
    assert not store.is_usual(np.repeat(level, 9, axis=1))
    assert not store.is_usual(np.repeat(level + [[0.5], [0]], 10, axis=1))
    assert not store.is_usual(level + np.tile([1, -1], 10))


def box_in(shape, place):
    """Pixels, two channels, and weight of a box without a seam."""
    weight = np.zeros(shape, np.float32)
    weight[place] = LESION
    return np.stack([np.where(weight, a, b) for a, b in zip(LESION_VALUE, LEVEL, strict=True)]), weight


@pytest.mark.parametrize("dim", [2, 3])
def test_a_box_twice_as_large_is_a_box(dim):
    pixels, weight = enlarged(*box_in((10, 10, 10)[:dim], (slice(3, 7),) * dim), 2.0)
    expected = np.zeros((20, 20, 20)[:dim], bool)
    expected[(slice(6, 14),) * dim] = True
    np.testing.assert_array_equal(weight == LESION, expected)
    assert pixels.shape == (2, *expected.shape)
    # More than a voxel of the former size from the edge nothing is blended.
    np.testing.assert_allclose(pixels[(slice(None), *(slice(8, 12),) * dim)].reshape(2, -1).T, [LESION_VALUE] * 4**dim)
    np.testing.assert_allclose(pixels[(slice(None), *(0,) * dim)], LEVEL)
    # Half way between lesion and surroundings along a face.
    side = (slice(None), *(10,) * (dim - 1), slice(5, 7))
    np.testing.assert_allclose(pixels[side][0], LEVEL[0] + np.array([0.25, 0.75]) * (LESION_VALUE[0] - LEVEL[0]))


@pytest.mark.parametrize("factor", [1.1, 1.7, 2.6])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 5), (3, 4, 2)])
def test_volume_grows_with_the_third_power(size, factor):
    place = tuple(slice(4, 4 + n) for n in size)
    _, weight = enlarged(*box_in((10, 11, 12), place), factor)
    assert (weight == LESION).sum() == round(np.prod(size) * factor**3)


def test_seam_and_what_is_neither_are_enlarged_as_well():
    pixels, weight = box_in((9, 9, 9), np.s_[4:6, 4:6, 4:6])
    weight[4:6, 4:6, 3] = 0.5
    weight[4:6, 4:6, 0:2] = NEITHER
    _, larger = enlarged(pixels, weight, 2.0)
    assert (larger[9:11, 9:11, 0:4] == NEITHER).all() and (larger[9:11, 9:11, 4] != NEITHER).all()
    # Two voxels at a quarter of the way to their neighbors on either side: 0, 1/2, lesion.
    np.testing.assert_allclose(larger[9, 9, 5:9], [0.125, 0.375, 0.625, LESION])
    assert (larger[8:12, 8:12, 8:12] == LESION).all() and (larger == LESION).sum() == 64


def test_a_lesion_never_falls_apart():
    rng = np.random.default_rng(0)
    unchanged = 0
    for _ in range(100):
        # Voxels that share a face, an edge, or only a corner with the one before.
        way = np.clip(6 + np.cumsum(rng.integers(-1, 2, (rng.integers(1, 9), 3)), axis=0), 3, 8)
        pixels, weight = box_in((12, 12, 12), tuple(way.T))
        larger = enlarged(pixels, weight, rng.uniform(1.1, 3))
        assert label(larger[1] == LESION, np.ones((3, 3, 3)))[1] == 1
        unchanged += larger[0] is pixels and larger[1] is weight
    assert 5 < unchanged < 50


def test_no_lesion_becomes_larger_than_the_largest_of_the_dataset(make_store):
    instances = np.zeros((20, 20, 20), int)
    instances[8:10, 8:10, 8:10] = 1
    rng = np.random.default_rng(0)
    for largest, expected in ((1000, 8 * 27), (64, 64), (8, 8), (3, 8)):
        store = make_store(instances, largest=largest)
        assert len(store.draw(3, rng, 3.0).voxels) == expected
    # In a slice it grows as much along each axis.
    store = make_store(instances, spacing_mm=(1.0, 1.0), largest=64)
    assert len(store.draw(2, rng, 3.0).voxels) == 4 * 4
