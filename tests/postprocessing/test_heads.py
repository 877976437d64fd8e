"""Maps sampled at voxels of the image, values from hand geometry and from SciPy on the whole maps."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from nnunetv2_conflunet.postprocessing.heads import sample_maps


def test_on_one_grid_every_voxel_has_its_own_value():
    maps = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    voxels = np.array([(0, 0, 0), (2, 3, 4), (1, 2, 3)])
    found = sample_maps(maps, np.array([(0, 3), (0, 4), (0, 5)]), voxels)
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 59, 33], [60, 119, 93]]


def test_voxels_outside_of_the_box_have_the_outermost_value():
    maps = np.array([[[1, 2], [3, 4]]], np.float32)
    voxels = np.array([(0, 0), (9, 9), (0, 9), (5, 6), (4, 6)])
    assert sample_maps(maps, np.array([(4, 6), (5, 7)]), voxels).tolist() == [[1, 4, 2, 4, 2]]


def test_a_coarser_grid_is_interpolated_between_its_voxel_centers():
    maps = np.array([[[0.0, 4.0, 8.0]]])
    # Six voxels over three: their centers lie at -0.25, 0.25, 0.75, ... of the maps' steps.
    found = sample_maps(maps, np.array([(0, 1), (0, 6)]), np.array([(0, i) for i in range(6)]))
    assert found.tolist() == [[0, 1, 3, 5, 7, 8]]


def test_a_finer_grid_too():
    maps = np.array([[[0.0, 2.0, 10.0, 20.0]]])
    # Voxel 0 lies halfway between the first two.
    assert sample_maps(maps, np.array([(0, 1), (0, 2)]), np.array([(0, 0), (0, 1)])).tolist() == [[1, 15]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("shape", [(7, 8, 9), (5, 8, 12)])
def test_some_voxels_have_what_the_whole_maps_give_in_any_memory_order(shape, axes, dtype):
    rng = np.random.default_rng(0)
    stored = rng.normal(size=(2, *(shape[axis] for axis in axes))).astype(dtype)
    maps = stored.transpose(0, *(1 + axes.index(axis) for axis in range(3)))
    assert maps.shape[1:] == shape
    box = np.array([(2, 9), (0, 8), (1, 10)])
    voxels = rng.integers(0, (11, 10, 12), (40, 3))
    at = (voxels - box[:, 0] + 0.5) / (box[:, 1] - box[:, 0]) * shape - 0.5
    expected = [map_coordinates(i.astype(np.float64), at.T, order=1, mode="nearest") for i in maps]
    np.testing.assert_allclose(sample_maps(maps, box, voxels), expected, atol=1e-6)
    np.testing.assert_array_equal(sample_maps(maps, box, voxels[:5]), sample_maps(maps, box, voxels)[:, :5])


def test_no_voxels():
    none = np.zeros((0, 2), np.int64)
    for box in ([(0, 3), (0, 4)], [(0, 6), (0, 4)]):
        assert sample_maps(np.zeros((5, 3, 4)), np.array(box), none).shape == (5, 0)
