import numpy as np
import pytest
from scipy.ndimage import center_of_mass
from support import balls

from nnunetv2_conflunet.preprocessing.instance_centers import (
    centers_file,
    centers_in_crop,
    centers_of_map,
    write_centers,
)
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN

SHAPE = (20, 30, 24)


def three_balls():
    """The first touches the border of the image, the third is 12 voxels long along the second axis."""
    instances = balls(SHAPE, [(1, 8, 8), (12, 8, 8)], 3.2)
    instances[10:13, 15:27, 18:20] = 9
    return instances


def test_a_volume_has_one_center_for_each_instance_wherever_it_lies():
    instances = three_balls()
    table = centers_of_map(instances, None, dim=3)
    assert table[:, 0].tolist() == [1, 2, 9]
    np.testing.assert_allclose(table[:, 1:], center_of_mass(instances > 0, instances, [1, 2, 9]), atol=1e-12)


def test_planes_have_one_center_for_each_instance_in_each_slice():
    instances = three_balls()
    table = centers_of_map(instances, None, dim=2)
    expected = [
        [i, x, *center_of_mass(instances[x] == i)] for x in range(len(instances)) for i in np.unique(instances[x]) if i
    ]
    np.testing.assert_allclose(table, expected, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_no_instance_beside_unlabeled_voxels_has_a_center(dim):
    instances = three_balls()
    ignored = np.zeros(SHAPE, bool)
    # One voxel after the end of instance 9 in the slice 11.
    ignored[11, 27, 18] = True
    without = centers_of_map(instances, ignored, dim)
    lost = without[:, 0] == 9
    everything = centers_of_map(instances, None, dim)
    is_lost = (everything[:, 0] == 9) & ((everything[:, 1] == 11) | (dim == 3))
    np.testing.assert_array_equal(without, everything[~is_lost])
    assert lost.sum() == (2 if dim == 2 else 0)


@pytest.mark.parametrize("dim", [2, 3])
def test_an_empty_map_has_an_empty_table(dim, tmp_path):
    path = centers_file(tmp_path, "case.1")
    write_centers(centers_of_map(np.zeros(SHAPE, np.int16), None, dim), path)
    assert np.load(path).shape == (0, 4)
    assert len(centers_in_crop(np.load(path), [0, 0, 0], dim).ids) == 0


def test_a_crop_counts_from_its_own_first_voxel_even_outside_the_image():
    table = centers_of_map(three_balls(), None, dim=3)
    crop = centers_in_crop(table, [-4, 2, 20], dim=3)
    np.testing.assert_allclose(crop.voxels, table[:, 1:] - [-4, 2, 20])
    assert crop.ids.tolist() == [1, 2, 9]


def test_a_crop_of_a_slice_has_the_centers_of_that_slice_only():
    instances = three_balls()
    crop = centers_in_crop(centers_of_map(instances, None, dim=2), [11, 5, -3], dim=2)
    assert crop.ids.tolist() == [2, 9]
    np.testing.assert_allclose(
        crop.voxels, np.array(center_of_mass(instances[11] > 0, instances[11], [2, 9])) - [5, -3]
    )


@pytest.mark.parametrize("dim", [2, 3])
def test_unknown_instances_have_no_center_and_known_ones_that_touch_them_keep_theirs(dim):
    instances = three_balls().astype(np.int16)
    everything = centers_of_map(instances, None, dim)
    # Beside instance 9 on one side, and in a second piece alone.
    instances[10:13, 15:27, 17] = instances[5, 1, 1] = UNKNOWN
    np.testing.assert_array_equal(centers_of_map(instances, None, dim), everything)
