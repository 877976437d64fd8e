"""The lesions that can be pasted."""

import numpy as np
from pasting import LESION_VALUE, LEVEL


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


def test_lesions_larger_than_half_of_the_patch_are_not_pasted(make_store):
    # Lesions of 3 x 3 x 3 and of 1 x 1 x 4 voxels.
    assert make_store(patch_size=(6, 6, 8)).n_lesions == 2
    store = make_store(patch_size=(6, 6, 7))
    assert store.n_lesions == 1 and {len(store.draw(3, np.random.default_rng(i)).voxels) for i in range(9)} == {27}
    assert make_store(patch_size=(5, 6, 7)).n_lesions == 0
    # A network of planes does not care how many slices a lesion has.
    assert make_store(spacing_mm=(1.0, 1.0), patch_size=(6, 6)).n_lesions == 1


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


def test_a_store_uses_the_lesions_that_its_file_has_by_now(make_store):
    store = make_store()
    instances = np.zeros((20, 20, 20), int)
    instances[8, 8, 8:10] = 1
    # Another training starts after a lesion was removed, another one corrected, and the images normalized anew.
    make_store(instances, values=(LESION_VALUE, (3.0, 4.0)))
    drawn = [store.draw(3, np.random.default_rng(i)) for i in range(20)]
    assert None in drawn
    for lesion in drawn:
        if lesion is not None:
            assert len(lesion.voxels) == 2
            np.testing.assert_allclose(lesion.level, (3.0, 4.0))


def test_usual_are_intensities_like_those_around_the_lesions(make_store):
    store = make_store()
    level = np.array(LEVEL)[:, None]
    assert store.is_usual(np.repeat(level, 10, axis=1))
    assert not store.is_usual(np.repeat(level, 9, axis=1))
    assert not store.is_usual(np.repeat(level + [[0.5], [0]], 10, axis=1))
    assert not store.is_usual(level + np.tile([1, -1], 10))


def test_one_lesion_tells_what_is_usual_as_far_as_intensities_differ_around_it(make_store):
    rng = np.random.default_rng(0)
    instances = np.zeros((20, 20, 20), int)
    instances[8:11, 8:11, 8:11] = 1
    store = make_store(instances, values=(LESION_VALUE, rng.normal(size=(2, 20, 20, 20))))
    assert all(store.is_usual(rng.normal(size=(2, 200))) for _ in range(50))
    assert not store.is_usual(rng.normal(1, size=(2, 200)))
    assert not store.is_usual(rng.normal(scale=2, size=(2, 200)))


def test_many_lesions_tell_it_by_their_quantiles(make_store):
    instances = np.zeros((30, 30, 30), int)
    instances[4::7, 4::7, 4::7] = np.arange(1, 65).reshape(4, 4, 4)
    store = make_store(instances, values=(LESION_VALUE, np.random.default_rng(0).normal(size=(2, 30, 30, 30))))
    assert store.n_lesions == 64
    (file, _), *_ = store.places
    limits = np.array([store.lowest_level, store.highest_level, store.highest_spread])
    quantiles = [*np.quantile(file.level, (0.05, 0.95), axis=0), np.quantile(file.spread, 0.95, axis=0)]
    np.testing.assert_allclose(limits, quantiles, atol=0.02)
