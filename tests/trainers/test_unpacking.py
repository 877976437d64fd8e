import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunetv2_conflunet.trainers import unpacking
from nnunetv2_conflunet.trainers.targets import (
    HEATMAP,
    HEATMAP_AND_OFFSETS,
    HEATMAP_ONLY,
    OFFSETS,
    PATCH_RADIUS_SIGMAS,
    VALIDITY,
    InstanceCenters,
    center_offset_targets,
    coded_targets,
)
from nnunetv2_conflunet.trainers.unpacking import unpack_targets

# In patches the Gaussians end where they are below this.
TAIL = np.exp(-(PATCH_RADIUS_SIGMAS**2) / 2)


def batch_of(maps, spacing_mm, sigma_mm=2.0):
    coded = [coded_targets(i, InstanceCenters.of(i), None, spacing_mm, sigma_mm) for i in maps]
    return [torch.from_numpy(np.stack(i)) for i in zip(*coded, strict=True)]


def check(maps, spacing_mm, sigma_mm=2.0, device=None):
    codes, centers = (i.to(device) for i in batch_of(maps, spacing_mm, sigma_mm))
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
    monkeypatch.setattr(unpacking, "WINDOW_VOXELS", 1)
    instances = np.zeros((12, 30), np.int16)
    for i in range(8):
        instances[3:6, 4 * i : 4 * i + 3] = i + 1
    check([instances, np.fliplr(instances)], (1.0, 1.0))


def test_a_patch_narrower_than_a_gaussian_sees_all_of_a_center_outside():
    whole = np.zeros((12, 40), np.int16)
    whole[5:8, 17:20] = 1
    centers, patch = InstanceCenters.of(whole), slice(22, 26)
    coded = coded_targets(whole[:, patch], InstanceCenters(centers.ids, centers.voxels - [0, 22]), None, (1, 0.5), 2.0)
    found = unpack_targets(*(torch.from_numpy(i)[None] for i in coded), (1, 0.5), 2.0)[0, HEATMAP]
    expected, _ = center_offset_targets(whole, (1, 0.5))
    np.testing.assert_allclose(found, expected[:, patch], atol=TAIL * 1.01)
