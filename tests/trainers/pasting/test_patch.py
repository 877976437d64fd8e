"""Pasting one lesion at a known place."""

from functools import partial

import numpy as np
import pytest
from pasting import LESION_VALUE, LEVEL, patch_data
from scipy.ndimage import center_of_mass

from nnunetv2_conflunet.trainers.augmentation import CENTERS
from nnunetv2_conflunet.trainers.pasting.lesions import Lesion
from nnunetv2_conflunet.trainers.pasting.patch import Patch as PatchOfSize

SHAPE = (24, 24, 24)
Patch = partial(PatchOfSize, patch_size=SHAPE)


def first_lesion(store):
    """The lesion of 3 x 3 x 3 voxels; its crop has 4 voxels around it."""
    file, number = store.places[0]
    crop = file.read(number)
    return Lesion(crop.image, crop.weight, crop.labels, crop.surroundings.mean(axis=1))


def bar(lesion=5, place=np.s_[10:13, 10:13, 4:10]):
    instances = np.zeros(SHAPE, np.int16)
    instances[place] = lesion
    return instances


def test_intensities_are_shifted_to_the_new_surroundings(make_store):
    store = make_store()
    patch = Patch(patch_data(np.zeros(SHAPE, np.int16), (1.0, 10.0)))
    patch.image[1] += 0.0
    assert patch.paste(first_lesion(store), np.array([6, 6, 6]), store)
    inside = patch.instances == 1
    assert np.argwhere(inside).min(axis=0).tolist() == [10, 10, 10] and inside.sum() == 27
    np.testing.assert_allclose(patch.image[:, 11, 11, 11], LESION_VALUE)
    # One voxel outside the lesion, at half of the seam; there the lesion's own case has its surroundings.
    np.testing.assert_allclose(patch.image[:, 11, 11, 13], LEVEL)


def test_the_contrast_is_kept_where_the_tissue_is_brighter(make_store):
    store = make_store()
    store.highest_level = store.highest_level + 5
    patch = Patch(patch_data(np.zeros(SHAPE, np.int16), (3.0, 14.0)))
    assert patch.paste(first_lesion(store), np.array([6, 6, 6]), store)
    np.testing.assert_allclose(patch.image[:, 11, 11, 11], (6.0 + 2.0, 8.0 + 4.0))
    np.testing.assert_allclose(patch.image[:, 2, 2, 2], (3.0, 14.0))


def test_the_seam_blends_old_and_new(make_store):
    store = make_store()
    lesion = first_lesion(store)
    # Beside the lesion its case has another value than farther away.
    lesion.pixels[:, 5, 5, 7] = 21.0
    patch = Patch(patch_data(np.zeros(SHAPE, np.int16)))
    assert patch.paste(lesion, np.array([6, 6, 6]), store)
    np.testing.assert_allclose(patch.image[:, 11, 11, 13], (0.5 * 21 + 0.5 * 1, 0.5 * 21 + 0.5 * 10))


def test_the_lesion_gets_its_label_a_new_id_and_a_center(make_store):
    store = make_store(label=2)
    patch = Patch(patch_data(bar(lesion=5)))
    # A lesion outside the crop has an id, too.
    patch.next_id = 9
    assert patch.paste(first_lesion(store), np.array([2, 2, 12]), store)
    data = patch.data()
    semantic, instances = data["segmentation"].numpy()
    assert np.unique(instances).tolist() == [0, 5, 9]
    assert np.unique(semantic[instances == 9]).tolist() == [2]
    assert data[CENTERS].ids.tolist() == [5, 9]
    np.testing.assert_allclose(data[CENTERS].voxels[1], center_of_mass(instances == 9))


@pytest.mark.parametrize("dim", [2, 3])
def test_a_lesion_of_several_labels_keeps_each_where_it_is(make_store, dim):
    instances = np.zeros((20, 20, 20), int)
    instances[8:11, 8:11, 8:11] = 1
    label = np.ones(instances.shape, int)
    label[:, :, 8] = 2
    store = make_store(instances, label=label, spacing_mm=(1.0,) * dim)
    patch = PatchOfSize(patch_data(np.zeros(SHAPE[:dim], np.int16)), SHAPE[:dim])
    assert patch.paste(store.draw(dim, np.random.default_rng(0)), np.array([2, 3, 4][:dim]), store)
    start, *_ = np.argwhere(patch.semantic)
    pasted = patch.semantic[tuple(slice(i, i + 3) for i in start)]
    along_last = pasted.reshape(-1, 3)
    assert (along_last[0].tolist() in ([2, 1, 1], [1, 1, 2])) and (along_last == along_last[0]).all()
    assert np.count_nonzero(patch.semantic) == 3**dim


def test_ids_of_lesions_outside_the_crop_are_not_used_again():
    data = patch_data(bar(lesion=5))
    data[CENTERS] = type(data[CENTERS])(np.array([5, 40]), np.zeros((2, 3)))
    assert Patch(data).next_id == 41


def test_voxels_of_another_lesion_are_kept_and_the_center_is_that_of_the_rest(make_store):
    store = make_store()
    patch = Patch(patch_data(bar(place=np.s_[10, 10:13, 4:12])))
    # The lesion would be at 10:13 along each axis and loses 3 * 2 = 6 of its 27 voxels: too many.
    assert not patch.paste(first_lesion(store), np.array([6, 6, 6]), store)
    patch = Patch(patch_data(bar(place=np.s_[10, 10:13, 4:11])))
    before = patch.instances.copy()
    # Here it loses 3 voxels.
    assert patch.paste(first_lesion(store), np.array([6, 6, 6]), store)
    assert (patch.instances[before > 0] == 5).all()
    assert (patch.instances == 6).sum() == 24
    np.testing.assert_allclose(patch.centers.voxels[1], center_of_mass(patch.instances == 6))
    # Intensities of the other lesion stay as well.
    assert (patch.image[0][before > 0] == LEVEL[0]).all()


def test_a_lesion_that_would_fall_apart_is_refused(make_store):
    instances = np.zeros((30, 30, 40), int)
    instances[10, 10, 10:20] = 1
    store = make_store(instances)
    file, number = store.places[0]
    crop = file.read(number)
    lesion = Lesion(crop.image, crop.weight, crop.labels, crop.surroundings.mean(axis=1))
    across = patch_data(bar(place=np.s_[4:20, 10, 12]))
    assert not Patch(across).paste(lesion, np.array([6, 6, 4]), store)
    at_the_end = patch_data(bar(place=np.s_[4:20, 10, 17]))
    assert Patch(at_the_end).paste(lesion, np.array([6, 6, 4]), store)


@pytest.mark.parametrize("shift", [(-5, 6, 6), (6, 6, 18), (6, 20, 6)])
def test_a_lesion_that_would_leave_the_crop_is_refused(make_store, shift):
    store = make_store()
    assert not Patch(patch_data(np.zeros(SHAPE, np.int16))).paste(first_lesion(store), np.array(shift), store)


def test_surroundings_may_leave_the_crop(make_store):
    store = make_store()
    patch = Patch(patch_data(np.zeros(SHAPE, np.int16)))
    assert patch.paste(first_lesion(store), np.array([-4, 17, 6]), store)
    assert (patch.instances == 1).sum() == 27


@pytest.mark.parametrize("value", [-1, 3], ids=["outside the nonzero region", "ignore label"])
def test_a_lesion_on_what_is_no_background_is_refused(make_store, value):
    store = make_store()
    semantic = np.zeros(SHAPE, np.int16)
    semantic[:, :, 12:] = value
    data = patch_data(np.zeros(SHAPE, np.int16), semantic=semantic)
    # The lesion would reach one voxel beyond.
    assert not Patch(data).paste(first_lesion(store), np.array([6, 6, 6]), store)
    patch = Patch(data)
    assert patch.paste(first_lesion(store), np.array([6, 6, 5]), store)
    assert (patch.semantic[:, :, 12:] == value).all()
    assert (patch.image[0, :, :, 12:] == LEVEL[0]).all()


def test_surroundings_unlike_those_of_the_lesions_are_refused(make_store):
    store = make_store()
    for values in ((1.5, 10.0), (1.0, 9.0)):
        patch = Patch(patch_data(np.zeros(SHAPE, np.int16), values))
        assert not patch.paste(first_lesion(store), np.array([6, 6, 6]), store)
    patch = Patch(patch_data(np.zeros(SHAPE, np.int16)))
    patch.image[0] += np.where(np.indices(SHAPE).sum(axis=0) % 2, 1, -1)
    assert not patch.paste(first_lesion(store), np.array([6, 6, 6]), store)


def test_no_id_is_left():
    data = patch_data(bar(lesion=32766))
    assert Patch(data).next_id == 32767


def test_the_id_of_unknown_lesions_is_no_anchor_and_no_number_to_count_from(make_store):
    data = patch_data(bar(lesion=32767))
    data[CENTERS] = data[CENTERS].without(np.array([32767]))
    patch = Patch(data)
    assert patch.anchors == [] and patch.next_id == 1 and patch.n_lesions == 1


def test_lesions_in_the_margin_that_is_cut_off_are_no_anchors():
    instances = bar(lesion=5, place=np.s_[10, 10, 2:9])
    instances[10, 12, 1:6] = 8
    patch = PatchOfSize(patch_data(instances), (20, 20, 12))
    assert patch.low.tolist() == [2, 2, 6] and patch.high.tolist() == [22, 22, 18]
    (anchor,) = patch.anchors
    assert anchor.tolist() == [[10, 10, 6], [10, 10, 7], [10, 10, 8]]
    assert patch.n_lesions == 2


def test_the_data_of_the_loader_are_left_as_they_are(make_store):
    store = make_store()
    data = patch_data(bar())
    image, segmentation = data["image"].clone(), data["segmentation"].clone()
    patch = Patch(data)
    assert patch.paste(first_lesion(store), np.array([2, 2, 12]), store)
    assert data["image"].equal(image) and data["segmentation"].equal(segmentation)
    assert data[CENTERS].ids.tolist() == [5]
