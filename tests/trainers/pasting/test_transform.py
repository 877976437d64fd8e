"""Patches with pasted lesions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pasting import patch_data, store_in
from scipy.ndimage import binary_dilation, center_of_mass

from nnunetv2_conflunet.trainers.augmentation import CENTERS
from nnunetv2_conflunet.trainers.pasting.transform import PasteLesions, PastingSettings
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (30, 32, 34)
ALWAYS = PastingSettings(probability=1.0, max_number=4, touching=1.0)


def one_lesion():
    instances = np.zeros(SHAPE, np.int16)
    instances[14:18, 14:18, 14:18] = 3
    return instances


def pasted(store, data, seed, options=ALWAYS):
    np.random.seed(seed)
    return PasteLesions(store, options)(**data)


def new_ids(before, after):
    return sorted(set(np.unique(after["segmentation"][1])) - set(np.unique(before["segmentation"][1])))


@pytest.mark.parametrize("values", [{"probability": -0.1}, {"touching": 1.5}, {"max_number": 0}, {"max_number": 2.5}])
def test_settings_out_of_range_are_refused(values):
    (name,) = values
    with pytest.raises(InputError, match=f"Pasting: {name} is {values[name]}"):
        PastingSettings(**values)


def test_with_probability_0_a_patch_stays_as_it_is(make_store):
    data = patch_data(one_lesion())
    after = pasted(make_store(), data, 0, PastingSettings(probability=0.0))
    assert all(after[name] is data[name] for name in data)


def test_the_same_seed_gives_the_same_patch(make_store):
    store, data = make_store(), patch_data(one_lesion())
    first, again, other = (pasted(store, data, seed) for seed in (1, 1, 2))
    assert torch.equal(first["image"], again["image"]) and torch.equal(first["segmentation"], again["segmentation"])
    assert not torch.equal(first["segmentation"], other["segmentation"])


def test_touching_lesions_touch(make_store):
    store, data = make_store(), patch_data(one_lesion())
    numbers = []
    for seed in range(30):
        after = pasted(store, data, seed)
        instances = after["segmentation"][1].numpy()
        new = new_ids(data, after)
        numbers.append(len(new))
        for lesion in new:
            beside = instances[binary_dilation(instances == lesion, np.ones((3, 3, 3)))]
            assert len(set(beside) - {0, lesion}) > 0
    assert set(numbers) >= {1, 2, 3, 4}


def test_the_first_lesion_of_a_patch_is_pasted_anywhere(make_store):
    store, data = make_store(), patch_data(np.zeros(SHAPE, np.int16))
    places = [tuple(pasted(store, data, seed)[CENTERS].voxels[0]) for seed in range(20)]
    assert len(set(places)) > 15
    assert (np.ptp(places, axis=0) > 15).all()


def test_lesions_are_pasted_into_the_middle_of_the_crop(make_store):
    store, data = make_store(patch_size=(10, 10, 10)), patch_data(np.zeros(SHAPE, np.int16))
    places = np.array([pasted(store, data, seed)[CENTERS].voxels[0] for seed in range(20)])
    # A voxel of the lesion lies in the middle, its center at most two voxels outside.
    assert (np.abs(places - (np.array(SHAPE) - 1) / 2) <= 5 + 2).all()


def test_other_lesions_are_pasted_near_or_alone(make_store):
    instances = np.zeros((20, 20, 20), int)
    instances[9, 9, 9] = 1
    store, data = make_store(instances), patch_data(one_lesion())
    options = PastingSettings(probability=1.0, max_number=1, touching=0.0)
    far = np.abs(np.array([pasted(store, data, seed, options)[CENTERS].voxels[1] for seed in range(60)]) - 15.5)
    # Up to 6 mm from the face of a cube of 4 voxels, along a straight way; or anywhere.
    near = (far.max(axis=1) <= 2 + 6).mean()
    assert 0.4 < near < 0.9


def test_a_patch_has_no_more_lesions_than_a_case_of_the_dataset(make_store):
    store, data = make_store(n_lesions=2), patch_data(one_lesion())
    assert all(len(new_ids(data, pasted(store, data, seed))) <= 1 for seed in range(10))


def test_nothing_is_pasted_from_a_file_that_has_lost_its_lesions(make_store):
    store, data = make_store(), patch_data(one_lesion())
    make_store(np.zeros((20, 20, 20), int))
    assert new_ids(data, pasted(store, data, 0)) == []


def test_nothing_is_pasted_where_nothing_fits(make_store):
    data = patch_data(one_lesion(), semantic=np.where(one_lesion() > 0, 1, -1))
    after = pasted(make_store(), data, 0)
    assert torch.equal(after["segmentation"], data["segmentation"]) and torch.equal(after["image"], data["image"])


@pytest.mark.parametrize("seed", range(10))
def test_in_two_dimensions(make_store, seed):
    instances = np.zeros((20, 20, 20), int)
    instances[3:6, 8:10, 8:11] = 1
    store = make_store(instances, spacing_mm=(1.0, 1.0))
    plane = one_lesion()[15]
    data = patch_data(plane)
    after = pasted(store, data, seed)
    new = new_ids(data, after)
    assert new
    semantic, found = after["segmentation"].numpy()
    assert (found[plane > 0] == 3).all()
    np.testing.assert_array_equal(semantic > 0, found > 0)
    for lesion, center in zip(after[CENTERS].ids, after[CENTERS].voxels, strict=True):
        np.testing.assert_allclose(center, center_of_mass(found == lesion))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_laws_of_any_patch(seed, tmp_path_factory):
    """Voxels that were lesion, ignored or outside stay; every lesion has a center of mass and one label."""
    store = store_in(tmp_path_factory.mktemp("lesions") / "case.npz")
    rng = np.random.default_rng(seed)
    instances = np.zeros((26, 26, 26), np.int16)
    for lesion in range(1, rng.integers(2, 6)):
        low = rng.integers(1, 18, 3)
        size = rng.integers(1, 6, 3)
        box = tuple(slice(a, a + b) for a, b in zip(low, size, strict=True))
        instances[box] = np.where(instances[box] > 0, instances[box], lesion)
    semantic = (instances > 0).astype(np.int16)
    semantic[: rng.integers(0, 4)] = -1
    semantic[:, rng.integers(20, 27) :] = 2
    instances[(semantic < 0) | (semantic == 2)] = 0
    data = patch_data(instances, semantic=semantic)
    after = pasted(store, data, seed % 2**31, PastingSettings(1.0, 4, rng.random()))
    semantic_after, instances_after = after["segmentation"].numpy()
    fixed = semantic != 0
    np.testing.assert_array_equal(semantic_after[fixed], semantic[fixed])
    np.testing.assert_array_equal(instances_after[fixed], instances[fixed])
    np.testing.assert_array_equal(semantic_after == 1, instances_after > 0)
    assert torch.equal(after["image"][:, fixed], data["image"][:, fixed])
    np.testing.assert_array_equal(np.unique(instances_after[instances_after > 0]), np.sort(after[CENTERS].ids))
    for lesion, center in zip(after[CENTERS].ids, after[CENTERS].voxels, strict=True):
        np.testing.assert_allclose(center, center_of_mass(instances_after == lesion))
