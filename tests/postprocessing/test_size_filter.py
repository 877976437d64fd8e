"""The size filter at its limits."""

import inspect

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import (
    InstantiationSettings,
    filter_small_instances,
    instantiate,
    remove_small_instances,
)
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS, SizeLimits, describe_removed, refuse_limits
from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNetISBI2024
from nnunetv2_conflunet.utilities.errors import InputError


def block(*size, shape=(12, 12, 12), value=1):
    instances = np.zeros(shape, np.int32)
    instances[tuple(slice(2, 2 + n) for n in size)] = value
    return instances


def kept(instances, spacing_mm, **limits):
    return remove_small_instances(instances, spacing_mm, **limits).any()


def fourteen_voxels(n):
    """A 3 x 3 x 3 bounding box with n voxels: two diagonal corners, then any."""
    instances = np.zeros((5, 5, 5), np.int32)
    inside = instances[1:4, 1:4, 1:4].reshape(-1)
    inside[[0, 26]] = 1
    inside[1 : n - 1] = 1
    instances[1:4, 1:4, 1:4] = inside.reshape(3, 3, 3)
    assert instances.sum() == n
    return instances


def test_exactly_fourteen_mm3_stays_and_thirteen_goes():
    assert kept(fourteen_voxels(14), (1, 1, 1))
    assert not kept(fourteen_voxels(13), (1, 1, 1))


@pytest.mark.parametrize("axis", range(3))
def test_short_along_any_axis_goes(axis):
    size = [5, 5, 5]
    size[axis] = 3
    assert kept(block(*size), (1, 1, 1))
    size[axis] = 2
    assert not kept(block(*size), (1, 1, 1))


def test_spacing_is_in_the_axes_order_of_the_array():
    assert kept(block(1, 3, 5), (3.0, 1.0, 1.0))
    assert not kept(block(1, 3, 5), (1.0, 1.0, 3.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twenty_five_steps_of_0_12_are_3_mm(dtype):
    spacing = [dtype(0.12)] * 3
    big = block(25, 25, 25, shape=(30, 30, 30))
    assert kept(big, spacing, min_volume_mm3=27.0)
    assert not kept(block(24, 25, 25, shape=(30, 30, 30)), spacing, min_volume_mm3=0)
    # 0.7 mm is a little less as float32: 20 steps are 14 mm.
    assert kept(block(1, 1, 20, shape=(3, 3, 24)), np.float32([1, 1, 0.7]), min_extent_mm=0, min_volume_mm3=14.0)


def test_limits_of_zero_are_off():
    one = block(1, 1, 1)
    assert kept(one, (1, 1, 1), min_volume_mm3=0, min_extent_mm=0)
    assert not kept(one, (1, 1, 1), min_volume_mm3=1.1, min_extent_mm=0)


def test_ids_keep_their_numbers_and_the_report_adds_up():
    instances = block(4, 4, 4, value=70_000)
    instances[9:11, 9:11, 9:11] = 5
    instances[0, 0, 0] = 2**31 - 1
    found, report = filter_small_instances(instances, (1.0, 1.0, 2.0))
    assert found.dtype == np.int32
    assert np.unique(found).tolist() == [0, 70_000]
    assert report == {"n_instances_removed": 2, "n_voxels_removed": 9, "removed_mm3": 18.0}
    assert np.unique(instances).tolist() == [0, 5, 70_000, 2**31 - 1]


@pytest.mark.parametrize("shape", [(12, 12), (1, 12, 12)])
def test_in_a_plane_extents_alone_decide(shape):
    instances = np.zeros((12, 12), np.int32)
    instances[1:4, 1:4] = 1  # 9 mm2, 3 mm by 3 mm
    instances[6:8, 1:9] = 2  # 16 mm2, 2 mm by 8 mm
    spacing = (999.0, 1.0, 1.0)[-len(shape) :]
    found, report = filter_small_instances(instances.reshape(shape), spacing)
    assert found.shape == shape
    assert np.unique(found).tolist() == [0, 1]
    assert report == {"n_instances_removed": 1, "n_voxels_removed": 16, "removed_mm2": 16.0}


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5), (0, 5, 6)])
def test_empty(shape):
    found, report = filter_small_instances(np.zeros(shape, np.uint16), (1.0,) * len(shape))
    assert found.shape == shape and not found.any()
    assert report["n_instances_removed"] == report["n_voxels_removed"] == 0


def test_the_pipeline_filters_after_splitting_and_renumbers():
    foreground = np.zeros((10, 10, 22), bool)
    foreground[3:7, 3:7, 3:7] = True  # touches the next one, which is too short
    foreground[3:7, 3:7, 7:9] = True
    foreground[3:7, 3:7, 14:18] = True
    heatmap = np.zeros(foreground.shape)
    heatmap[5, 5, [5, 8, 15]] = 1, 0.8, 0.6
    result = instantiate(foreground, (1, 1, 1), heatmap=heatmap, offsets_mm=np.zeros((3, *foreground.shape)))
    # Columns 3 to 6 are nearer to 5 than to 8.
    assert np.unique(result.instances[:, :, 3:7]).tolist() == [0, 1]
    assert not result.instances[:, :, 7:9].any()
    assert np.unique(result.instances[:, :, 14:18]).tolist() == [0, 2]
    assert result.center_score == pytest.approx([1, 0.6])
    assert result.report == {
        "method": "center_offset", "n_voxels_foreground": 160, "n_centers": 3, "n_instances": 2,
        "n_instances_without_center": 0, "n_pieces_merged": 0,
        "n_pieces_reattached": 0, "n_voxels_reattached": 0,
        "n_instances_removed": 1, "n_voxels_removed": 32, "removed_mm3": 32.0,
    }  # fmt: skip
    everything = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0)
    unfiltered = instantiate(
        foreground, (1, 1, 1), everything, heatmap=heatmap, offsets_mm=np.zeros((3, *foreground.shape))
    )
    assert unfiltered.instances.max() == 3


@pytest.mark.parametrize("shape", [(12, 12), (1, 12, 12)])
def test_in_a_plane_a_smallest_area_acts_if_there_is_one(shape):
    instances = np.zeros((12, 12), np.int32)
    instances[1:4, 1:4] = 1  # 9 pixels of 0.5 mm2
    instances[6:9, 1:5] = 2  # 12 pixels
    spacing = (999.0, 0.5, 1.0)[-len(shape) :]
    for area, left in ((0, [1, 2]), (4.5, [1, 2]), (4.6, [2]), (6.0, [2]), (6.1, [])):
        found = remove_small_instances(instances.reshape(shape), spacing, min_extent_mm=0, min_area_mm2=area)
        assert np.unique(found[found > 0]).tolist() == left
    settings = InstantiationSettings(method="cc", min_extent_mm=0, min_area_mm2=4.6)
    assert instantiate(instances.reshape(shape), spacing, settings).report["n_instances_removed"] == 1


def test_a_smallest_area_does_not_act_in_space():
    assert kept(fourteen_voxels(14), (1, 1, 1), min_area_mm2=1000)


def test_settings_of_earlier_versions_have_no_smallest_area():
    stored = InstantiationSettings(min_volume_mm3=20).to_dict()
    del stored["min_area_mm2"]
    assert InstantiationSettings.from_dict(stored) == InstantiationSettings(min_volume_mm3=20, min_area_mm2=0)
    with pytest.raises(InputError, match="min_area_mm2 is -1"):
        InstantiationSettings(min_area_mm2=-1)


def test_the_report_in_words_names_the_limits_that_act():
    settings = InstantiationSettings(method="cc", min_area_mm2=20)
    mask = np.zeros((12, 12, 12), bool)
    mask[1:5, 1:5, 1:5] = mask[8, 8, 8] = True
    for foreground, limits in ((mask, "14 mm3 and 3 mm"), (mask[1], "20 mm2 and 3 mm"), (mask[1:2], "20 mm2 and 3 mm")):
        text = describe_removed(instantiate(foreground, (1,) * foreground.ndim, settings).report, settings.limits)
        assert f"the size filter ({limits}) removed 1" in text


@pytest.mark.parametrize(
    "shape, spacing_mm, changes, size",
    [
        # A true spacing in mm of a microscope's stack.
        ((64, 512, 512), (0.001, 0.0003, 0.0003), {}, "0.064 x 0.1536 x 0.1536 mm"),
        ((2, 40, 40), (1, 1, 1), {}, "2 x 40 x 40 mm"),
        ((3, 3, 3), (1, 1, 1), {"min_volume_mm3": 27.1}, "3 x 3 x 3 mm"),
        ((1, 512, 512), (999, 0.001, 0.001), {}, "0.512 x 0.512 mm"),
        ((20, 10), (1, 1), {"min_area_mm2": 201}, "20 x 10 mm"),
    ],
)
def test_limits_that_not_even_the_whole_image_reaches_are_refused(shape, spacing_mm, changes, size):
    with pytest.raises(InputError, match=f"The image is {size} large, and .* would remove every .* micrometers"):
        refuse_limits(shape, spacing_mm, SizeLimits(**changes))


@pytest.mark.parametrize(
    "shape, spacing_mm, changes",
    [
        ((64, 512, 512), (1, 0.3, 0.3), {}),
        ((3, 3, 3), (1, 1, 1), {}),
        ((1, 512, 512), (0.001, 1, 1), {}),
        ((20, 10), (1, 1), {"min_area_mm2": 200}),
        ((2, 2, 2), (0.001, 0.001, 0.001), dict.fromkeys(LIMITS, 0)),
    ],
)
def test_limits_that_an_instance_can_reach_are_not(shape, spacing_mm, changes):
    refuse_limits(shape, spacing_mm, SizeLimits(**changes))


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_stand_once(name):
    default = getattr(SizeLimits(), name)
    assert getattr(InstantiationSettings(), name) == getattr(EvaluationSettings(), name) == default
    assert getattr(nnUNetTrainerConfLUNetISBI2024.instantiation, name) == default
    assert inspect.signature(remove_small_instances).parameters[name].default == default
    settings = {name: 7.0}
    for holder in (InstantiationSettings(**settings), EvaluationSettings(**settings)):
        assert holder.limits == SizeLimits(**settings)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, "3", None, True])
def test_limits_that_are_not_possible(value):
    with pytest.raises(InputError, match=f"min_extent_mm is {value!r}; it must be 0 or a positive number"):
        SizeLimits(min_extent_mm=value)
    with pytest.raises(InputError, match="min_extent_mm is"):
        remove_small_instances(np.zeros((3, 3), int), (1, 1), min_extent_mm=value)
