import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import unpacked

from nnunetv2_conflunet.postprocessing.encoding import center_offset_targets
from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.trainers import targets
from nnunetv2_conflunet.trainers.targets import (
    BACKGROUND,
    FIRST_ROW,
    HEATMAP,
    HEATMAP_AND_OFFSETS,
    HEATMAP_ONLY,
    LEFT_OUT,
    NOTHING,
    OFFSETS,
    PATCH_RADIUS_SIGMAS,
    VALIDITY,
    coded_targets,
    unpack_targets,
    used_rows,
)

# In patches the Gaussians end where they are below this.
TAIL = np.exp(-(PATCH_RADIUS_SIGMAS**2) / 2)


def batch_of(maps, spacing_mm, sigma_mm=2.0):
    coded = [coded_targets(instances, InstanceCenters.of(instances), None, spacing_mm, sigma_mm) for instances in maps]
    return [torch.from_numpy(np.stack(array)) for array in zip(*coded, strict=True)]


def check(maps, spacing_mm, sigma_mm=2.0, device=None):
    codes, centers = (array.to(device) for array in batch_of(maps, spacing_mm, sigma_mm))
    packed = unpack_targets(codes, centers, spacing_mm, sigma_mm).cpu().numpy()
    for found, instances in zip(packed, maps, strict=True):
        heatmap, offsets_mm = center_offset_targets(instances, spacing_mm, sigma_mm)
        np.testing.assert_allclose(found[HEATMAP], heatmap, atol=TAIL * 1.01)
        np.testing.assert_allclose(found[OFFSETS], offsets_mm, atol=1e-4)
        np.testing.assert_array_equal(found[VALIDITY], np.where(instances > 0, HEATMAP_AND_OFFSETS, HEATMAP_ONLY))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.9, 1.1), (0.5, 0.5), (2.0, 1.0)])
def test_a_batch_has_the_targets_of_its_maps(spacing_mm, device):
    rng = np.random.default_rng(0)
    shape = (14, 22, 18)[-len(spacing_mm) :]
    maps = []
    for _ in range(3):
        instances = np.zeros(shape, np.int32)
        for i in range(1, 6):
            corner = [rng.integers(0, n - 4) for n in shape]
            instances[tuple(slice(c, c + rng.integers(2, 5)) for c in corner)] = 10 * i
        maps.append(instances)
    check([*maps, np.zeros(shape, np.int32)], spacing_mm, device=device)


@given(arrays(np.int16, (5, 6, 7), elements=st.integers(0, 4)))
def test_any_map_has_the_targets_of_the_public_function(instances):
    check([instances], (1.5, 1.0, 0.7))


def test_many_centers_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr(targets, "WINDOW_VOXELS", 1)
    instances = np.zeros((12, 30), np.int16)
    for i in range(8):
        instances[3:6, 4 * i : 4 * i + 3] = i + 1
    check([instances, np.fliplr(instances)], (1.0, 1.0))


@pytest.mark.parametrize("most_rows, kind", [(126, np.uint8), (254, np.uint8), (255, np.int16), (300, np.int16)])
def test_codes_have_the_smallest_type_that_counts_the_rows(most_rows, kind):
    """The last of 126 bars: 64 x 64 voxels have room for 455 lesions."""
    instances = np.zeros((64, 64), np.int16)
    for i in range(126):
        instances[3 * (i // 21), 3 * (i % 21) : 3 * (i % 21) + 2] = 1000 + i
    codes, rows = coded_targets(instances, InstanceCenters.of(instances), None, (1, 1), 0.5, most_rows)
    assert codes.dtype == kind and rows.shape == (most_rows, 2)
    assert codes[0, 15, 60] == FIRST_ROW + 125 and rows[125].tolist() == [15, 60.5]
    packed = unpacked((codes, rows), (1.0, 1.0), 0.5)
    np.testing.assert_allclose(packed[OFFSETS], center_offset_targets(instances, (1.0, 1.0), 0.5)[1], atol=1e-4)


def test_rows_that_no_patch_uses_change_nothing():
    maps = [np.zeros((9, 12), np.int16) for _ in range(3)]
    maps[0][1:4, 1:4], maps[0][1:4, 4:6], maps[1][5:8, 2:9] = 1, 2, 5
    codes, centers = batch_of(maps, (1.0, 2.0))
    assert centers.shape == (3, 12, 2) and used_rows(centers).shape == (3, 2, 2)
    all_rows, used = (unpack_targets(codes, rows, (1.0, 2.0), 2.0) for rows in (centers, used_rows(centers)))
    assert torch.equal(all_rows, used)
    assert used_rows(centers[2:]).shape == (1, 0, 2)
    empty = unpack_targets(codes[2:], used_rows(centers[2:]), (1.0, 2.0), 2.0)
    assert torch.equal(empty, all_rows[2:]) and not empty[:, HEATMAP].any()


def test_unpacking_on_a_gpu_waits_for_no_result(device):
    if device.type == "cpu":
        pytest.skip("operations on a CPU end before the next one begins")
    codes, centers = (array.to(device) for array in batch_of([np.eye(9, 12, dtype=np.int16)], (1.0, 2.0)))
    # Constants of the grid are copied to the device once.
    first = unpack_targets(codes, centers, (1.0, 2.0), 2.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = unpack_targets(codes, centers, (1.0, 2.0), 2.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)


def test_a_patch_narrower_than_a_gaussian_sees_all_of_a_center_outside():
    whole = np.zeros((12, 40), np.int16)
    whole[5:8, 17:20] = 1
    centers, patch = InstanceCenters.of(whole), slice(22, 26)
    coded = coded_targets(whole[:, patch], InstanceCenters(centers.ids, centers.voxels - [0, 22]), None, (1, 0.5), 2.0)
    found = unpack_targets(*(torch.from_numpy(array)[None] for array in coded), (1, 0.5), 2.0)[0, HEATMAP]
    expected, _ = center_offset_targets(whole, (1, 0.5))
    np.testing.assert_allclose(found, expected[:, patch], atol=TAIL * 1.01)


def test_coded_targets_leave_out_what_is_not_known():
    instances = np.zeros((9, 9, 9), np.int16)
    instances[1, 1, 1:3], instances[7, 7, 7] = 1, 2
    ignored = np.zeros(instances.shape, bool)
    ignored[0, 0, 0] = ignored[1, 1, 1] = True
    centers = InstanceCenters(np.array([1]), np.array([[1, 1, 1.5]]))
    codes, rows = coded_targets(instances, centers, ignored, (1, 1, 1), 1.0)
    assert codes.dtype == np.uint8 and codes.shape == (1, 9, 9, 9)
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
    assert codes.tolist() == [[[FIRST_ROW, BACKGROUND, *[LEFT_OUT] * 2], [BACKGROUND, BACKGROUND, *[LEFT_OUT] * 2]]]
    # A center beside the patch takes no row from one of the patch's own.
    beside = InstanceCenters(np.array([1, 2]), np.array([[-9.0, 0.0], [1.0, 3.0]]))
    codes, rows = coded_targets(np.where(instances == 1, 0, instances), beside, None, (1, 1), 0.5)
    assert rows.tolist() == [[1, 3]] and codes.tolist() == [[[BACKGROUND] * 4, [*[BACKGROUND] * 3, FIRST_ROW]]]
