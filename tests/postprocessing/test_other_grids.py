"""Heads on another grid than the output."""

import numpy as np
import pytest
from skimage.transform import resize

from nnunetv2_conflunet.postprocessing import instantiate_center_offset
from nnunetv2_conflunet.postprocessing.assignment import assign_by_offsets
from nnunetv2_conflunet.postprocessing.centers import find_peaks
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.voxels import Voxels

SHAPE, SPACING = (24, 26, 28), (1.0, 1.0, 1.0)


def cubes():
    """Three cubes of 8 mm in a row that touch, and one apart; all borders are even."""
    instances = np.zeros(SHAPE, np.int32)
    for i, x in enumerate((2, 10, 18)):
        instances[2:10, 2:10, x : x + 8] = i + 1
    instances[14:22, 14:24, 4:14] = 4
    return instances


@pytest.mark.parametrize("factor", [2, 3])
def test_finer_output_gets_the_same_cubes(toys, factor):
    instances = cubes()
    heads = toys.perfect_heads(instances, SPACING)
    fine = np.kron(instances, np.ones((factor,) * 3, int))
    found = instantiate_center_offset(fine > 0, *heads, [1 / factor] * 3)
    assert np.array_equal(found > 0, fine > 0)
    assert toys.same_partition(found, fine)


def test_half_resolution_output_gets_the_same_cubes(toys):
    instances = cubes()
    heads = toys.perfect_heads(instances, SPACING)
    coarse = instances[::2, ::2, ::2]
    found = instantiate_center_offset(coarse > 0, *heads, (2.0, 2.0, 2.0))
    assert toys.same_partition(found, coarse)


def test_output_of_another_resolution_on_each_axis(toys):
    instances = cubes()
    heads = toys.perfect_heads(instances, SPACING)
    other = np.repeat(instances[:, ::2], 3, axis=2)
    found = instantiate_center_offset(other > 0, *heads, (1, 2, 1 / 3))
    assert toys.same_partition(found, other)


@pytest.mark.parametrize("shape", [(12, 17, 40), (24, 26, 28)])
def test_offsets_are_sampled_as_skimage_resizes(shape):
    """The same offsets as of the field resized by scikit-image, and the same center at each voxel as those give."""
    rng = np.random.default_rng(0)
    heads_shape = (12, 13, 14)
    offsets_mm = rng.uniform(-3, 3, (3, *heads_shape)).astype(np.float32)
    heatmap = np.zeros(heads_shape, np.float32)
    peaks = [(2, 2, 2), (2, 10, 11), (9, 3, 10), (9, 10, 3)]
    heatmap[tuple(np.transpose(peaks))] = 1
    spacing = np.array(SHAPE) / shape
    resized = np.stack([resize(o, shape, order=1, mode="edge", anti_aliasing=False) for o in offsets_mm])
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) * spacing
    peaks_mm = ((np.array(peaks) + 0.5) / heads_shape * shape - 0.5) * spacing
    distance = np.linalg.norm((at + np.moveaxis(resized, 0, -1))[..., None, :] - peaks_mm, axis=-1)
    expected = distance.argmin(axis=-1)
    heads = HeadMaps.of(heatmap, offsets_mm, shape, spacing)
    voxels = Voxels.of(np.ones(shape, bool))
    assert np.abs(heads.offsets_at(voxels.coordinates) - np.moveaxis(resized, 0, -1).reshape(-1, 3)).max() < 1e-5
    peaks = find_peaks(heads.heatmap, heads.spacing_mm, threshold=0.1, window_mm=3.0)
    found = assign_by_offsets(voxels, heads, peaks)
    margin = np.diff(np.sort(distance, axis=-1)[..., :2], axis=-1).ravel() > 1e-4
    assert np.array_equal(found.center[margin] - 1, expected.ravel()[margin])


def test_heads_of_a_box_match_heads_of_the_whole_image(toys):
    instances = cubes()
    heatmap, offsets_mm = toys.perfect_heads(instances, SPACING)
    box = np.array([(1, 23), (1, 25), (2, 27)])
    inside = tuple(slice(a, b) for a, b in box)
    found = instantiate_center_offset(
        instances > 0, heatmap[inside], offsets_mm[(slice(None), *inside)], SPACING, heads_box=box
    )
    assert toys.same_partition(found, instances)


def test_heads_of_half_resolution_in_a_box(toys):
    instances = cubes()
    fine = np.kron(instances, np.ones((2, 2, 2), int))
    heatmap, offsets_mm = toys.perfect_heads(instances, SPACING)
    found = instantiate_center_offset(
        fine > 0, heatmap[1:23, 1:25, 2:27], offsets_mm[:, 1:23, 1:25, 2:27], (0.5, 0.5, 0.5),
        heads_box=np.array([(2, 46), (2, 50), (4, 54)]),
    )  # fmt: skip
    assert toys.same_partition(found, fine)


def test_foreground_outside_the_box_is_kept(toys):
    instances = cubes()
    heatmap, offsets_mm = toys.perfect_heads(instances, SPACING)
    found = instantiate_center_offset(
        instances > 0, heatmap[:12], offsets_mm[:, :12], SPACING, heads_box=np.array([(0, 12), (0, 26), (0, 28)])
    )
    assert toys.same_partition(found, instances)


def test_a_single_slice_is_a_plane(toys):
    instances = toys.balls(4, (48, 50), (1.0, 1.0), 10)
    heatmap, offsets_mm = toys.perfect_heads(instances, (1.0, 1.0))
    flat = instantiate_center_offset(instances > 0, heatmap, offsets_mm, (1.0, 1.0))
    # The spacing that nnU-Net's readers give the axis that a 2D image does not have.
    slice_ = instantiate_center_offset(instances[None] > 0, heatmap[None], offsets_mm[:, None], (999.0, 1.0, 1.0))
    assert np.array_equal(slice_[0], flat)
    three = np.concatenate([np.zeros_like(offsets_mm[:1]), offsets_mm])[:, None]
    assert np.array_equal(
        instantiate_center_offset(instances[None] > 0, heatmap[None], three, (999.0, 1.0, 1.0)), slice_
    )
