"""Components of listed voxels against SciPy's of the whole image."""

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, sizes_and_boxes


def slow_components(image, connectivity):
    """Components of equal values, one value at a time, numbered by their first voxels."""
    rank = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[connectivity]
    structure = ndimage.generate_binary_structure(image.ndim, rank)
    label = np.zeros(image.shape, int)
    for value in np.unique(image[image > 0]):
        found = ndimage.label(image == value, structure)[0]
        label = np.where(found > 0, found + label.max(), label)
    label = label[image > 0]
    number = {}
    return [number.setdefault(i, len(number) + 1) for i in label.tolist()]


@pytest.mark.parametrize("density", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize(
    ("shape", "connectivity"),
    [((6, 7, 8), 6), ((6, 7, 8), 18), ((6, 7, 8), 26), ((1, 1, 9), 26), ((9, 1, 1), 6), ((15, 16), 4), ((15, 16), 8)],
)
def test_components_of_equal_values(shape, connectivity, density):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 4, shape) * (rng.random(shape) < density)
    # Long runs beside single voxels.
    image[..., : shape[-1] // 2] = np.where(image[..., : shape[-1] // 2] > 0, 2, 0)
    voxels = Voxels.of(image > 0)
    values = image[image > 0]
    assert voxels.components(connectivity, values).tolist() == slow_components(image, connectivity)
    assert voxels.components(connectivity).tolist() == slow_components((image > 0).astype(int), connectivity)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_the_highest_value_of_a_type_has_components_too(dtype):
    highest = np.iinfo(dtype).max
    image = np.array([[highest, highest, 1, 0, highest]], dtype)
    assert Voxels.of(image > 0).components(8, image[image > 0]).tolist() == [1, 1, 2, 3]


def test_the_end_of_a_line_does_not_touch_the_start_of_the_next():
    mask = np.zeros((3, 3, 4), bool)
    mask[0, 0, 3] = mask[0, 1, 0] = mask[0, 2, 3] = mask[1, 0, 0] = True
    assert Voxels.of(mask).components(26).tolist() == [1, 2, 3, 2]


def test_first_voxels():
    assert first_voxels(np.array([1, 1, 2, 1, 3, 2, 4])).tolist() == [0, 2, 4, 6]
    assert first_voxels(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("highest", [3, 300, 70_000])
def test_sizes_and_boxes_of_labels_however_high(highest):
    coordinates = np.array([(0, 4), (1, 2), (3, 3), (5, 0)])
    ids, n_voxels, first, last = sizes_and_boxes(coordinates, np.array([highest, 0, highest, 2]))
    assert ids.tolist() == [0, 2, highest]
    assert n_voxels.tolist() == [1, 1, 2]
    assert first.tolist() == [[1, 2], [5, 0], [0, 3]]
    assert last.tolist() == [[1, 2], [5, 0], [3, 4]]
