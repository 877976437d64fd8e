import numpy as np
import pytest
from support import unpacked

from nnunetv2_conflunet.trainers.targets import (
    HEATMAP,
    HEATMAP_AND_OFFSETS,
    HEATMAP_ONLY,
    NOTHING,
    OFFSETS,
    VALIDITY,
    InstanceCenters,
    coded_targets,
)


def test_coded_targets_leave_out_what_is_not_known():
    instances = np.zeros((9, 9, 9), np.int16)
    instances[1, 1, 1:3], instances[7, 7, 7] = 1, 2
    ignored = np.zeros(instances.shape, bool)
    ignored[0, 0, 0] = ignored[1, 1, 1] = True
    centers = InstanceCenters(np.array([1]), np.array([[1, 1, 1.5]]))
    codes, rows = coded_targets(instances, centers, ignored, (1, 1, 1), 1.0)
    assert codes.dtype == np.int16 and codes.shape == (1, 9, 9, 9)
    assert rows.dtype == np.float32 and rows.shape == (27, 3)
    packed = unpacked((codes, rows), (1, 1, 1), 1.0)
    validity = packed[VALIDITY]
    assert validity[0, 0, 0] == validity[1, 1, 1] == NOTHING
    # Instance 2 has no known center: nothing is learned on it, neither a zero heatmap nor an offset.
    assert validity[7, 7, 7] == NOTHING
    assert validity[1, 1, 2] == HEATMAP_AND_OFFSETS
    assert validity[0, 0, 5] == HEATMAP_ONLY
    np.testing.assert_allclose(packed[OFFSETS][:, 1, 1, 2], [0, 0, -0.5])
    # Nor in the background around it, where its peak may lie.
    assert validity[7, 7, 6] == validity[5, 5, 5] == NOTHING


def test_a_center_outside_the_patch_shines_in():
    instances = np.zeros((5, 5, 5), np.int16)
    instances[0, 2, 2] = 1
    centers = InstanceCenters(np.array([1]), np.array([[-2.0, 2, 2]]))
    packed = unpacked(coded_targets(instances, centers, None, (1, 1, 1), 2.0), (1, 1, 1), 2.0)
    assert packed[HEATMAP][0, 2, 2] == pytest.approx(np.exp(-0.5), abs=1e-3)
    assert packed[OFFSETS][:, 0, 2, 2].tolist() == [-2, 0, 0]


def test_the_peak_of_a_lesion_beside_the_patch_shines_in():
    centers = InstanceCenters(np.array([9]), np.array([[-2.0, 2, 2]]))
    coded = coded_targets(np.zeros((5, 5, 5), np.int16), centers, None, (1, 1, 1), 2.0)
    packed = unpacked(coded, (1, 1, 1), 2.0)
    assert packed[HEATMAP][0, 2, 2] == pytest.approx(np.exp(-0.5), abs=1e-3)
    assert (packed[VALIDITY] == HEATMAP_ONLY).all()


def test_centers_that_do_not_fit_into_the_rows_are_unknown():
    """Eight voxels of a plane hold no lesion of 3 x 3: one row, so that the second instance has none."""
    instances = np.array([[1, 0, 0, 0], [0, 0, 0, 2]])
    codes, rows = coded_targets(instances, InstanceCenters.of(instances), None, (1, 1), 0.5)
    assert rows.tolist() == [[0, 0]]
    assert codes.tolist() == [[[1, 0, -1, -1], [0, 0, -1, -1]]]
    # A center beside the patch takes no row from one of the patch's own.
    beside = InstanceCenters(np.array([1, 2]), np.array([[-9.0, 0.0], [1.0, 3.0]]))
    codes, rows = coded_targets(np.where(instances == 1, 0, instances), beside, None, (1, 1), 0.5)
    assert rows.tolist() == [[1, 3]] and codes.tolist() == [[[0, 0, 0, 0], [0, 0, 0, 1]]]
