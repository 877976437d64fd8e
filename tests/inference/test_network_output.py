"""The foreground probability on the image's grid, and ACLS at prediction."""

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.special import softmax
from skimage.transform import resize
from support import balls, dataset_json, small_plans

from nnunetv2_conflunet.inference.instances import instances_from_output
from nnunetv2_conflunet.inference.probability import foreground_probability_at, nearest_axis
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_border_core
from nnunetv2_conflunet.postprocessing.baselines.border_core import LABELS, BorderCore

SHAPE, SPACING = (30, 34, 38), (1.5, 1.0, 1.2)
BOX = np.array([(0, n) for n in SHAPE])
GRIDS = [SHAPE, (15, 34, 19), (45, 30, 38)]


def output_of(lesions, grid_shape):
    """Logits of two classes on another grid over the same extent, with heads of zeros."""
    noise = np.random.default_rng(0).normal(0, 2, SHAPE)
    logit = resize((lesions > 0) * 6.0 - 3 + noise, grid_shape, order=1)
    return np.concatenate([np.stack([-logit, logit]), np.zeros((4, *grid_shape))]).astype(np.float32)


def of_model(plans):
    """The managers of plans and of their one configuration."""
    manager = PlansManager(plans)
    return manager, manager.get_configuration(*plans["configurations"])


def probability_everywhere(output):
    """Of the whole image, by scikit-image."""
    logits = np.stack([resize(channel, SHAPE, order=1, mode="edge", anti_aliasing=False) for channel in output[:2]])
    return 1 - softmax(logits, axis=0)[0]


@pytest.mark.parametrize("grid_shape", GRIDS)
def test_the_probability_is_that_of_resized_logits_inside_the_mask_and_0_outside(grid_shape):
    lesions = balls(SHAPE, [(14, 12, 12), (20, 22, 24)], 4.0, SPACING)
    output = output_of(lesions, grid_shape)
    mask = np.random.default_rng(1).random(SHAPE) < 0.3
    mask[5] = False
    found = foreground_probability_at(mask, output[:2], BOX)
    assert found.dtype == np.float32
    assert not found[~mask].any()
    np.testing.assert_allclose(found[mask], probability_everywhere(output)[mask], atol=1e-6)
    # No value depends on which others are asked for.
    np.testing.assert_array_equal(found[mask], foreground_probability_at(np.ones(SHAPE, bool), output[:2], BOX)[mask])


@pytest.mark.parametrize(
    "image_mm, network_mm, transpose, nearest",
    [
        ((5.0, 1.0, 1.0), (4.0, 1.2, 1.2), [0, 1, 2], 0),
        # Halfway between two slices of the network's grid.
        ((3.0, 0.5, 0.5), (1.5, 0.5, 0.5), [0, 1, 2], 0),
        ((1.0, 1.0, 5.0), (4.0, 1.2, 1.2), [2, 0, 1], 2),
        ((1.0, 6.0, 1.1), (1.0, 1.0, 1.0), [0, 1, 2], 1),
        ((1.5, 1.0, 1.2), (1.0, 1.0, 1.0), [0, 1, 2], None),
        ((0.2, 1.0, 1.0), (1.0, 1.0, 1.0), [0, 1, 2], None),
    ],
)
def test_the_probability_is_that_of_logits_resampled_by_nnunet(image_mm, network_mm, transpose, nearest):
    plans = small_plans(spacing_mm=network_mm, transpose_forward=transpose)
    manager, configuration = of_model(plans)
    shape = (10, 12, 14)
    forward = [[values[axis] for axis in transpose] for values in (shape, image_mm)]
    grid = [max(2, round(n * a / b)) for n, a, b in zip(*forward, network_mm, strict=True)]
    logits = np.random.default_rng(0).normal(0, 2, (2, *grid))
    resampled = configuration.resampling_fn_probabilities(logits, forward[0], network_mm, forward[1])
    backward = [0, *(axis + 1 for axis in manager.transpose_backward)]
    expected = 1 - softmax(resampled.transpose(backward), axis=0)[0]
    assert nearest_axis(image_mm, manager, configuration) == nearest
    box = np.array([(0, n) for n in shape])
    found = foreground_probability_at(np.ones(shape, bool), logits.transpose(backward), box, nearest=nearest)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("grid_shape", GRIDS)
def test_with_regions_the_probability_is_the_highest_sigmoid_of_resized_logits(grid_shape):
    logits = np.random.default_rng(0).normal(0, 2, (3, *grid_shape)).astype(np.float32)
    mask = np.random.default_rng(1).random(SHAPE) < 0.3
    found = foreground_probability_at(mask, logits, BOX, by_region=True)
    resized = [resize(channel, SHAPE, order=1, mode="edge", anti_aliasing=False) for channel in logits]
    np.testing.assert_allclose(found[mask], np.max(1 / (1 + np.exp(-np.stack(resized))), axis=0)[mask], atol=1e-6)
    assert not found[~mask].any()


@pytest.mark.parametrize("by_region", [False, True])
def test_outside_of_nnunets_crop_the_probability_is_that_of_its_files(by_region):
    labels = LabelManager({"background": 0, "a": [1, 2], "b": 2} if by_region else {"background": 0, "a": 1}, [1, 2])
    logits = np.random.default_rng(0).normal(0, 2, (2, 4, 5, 6)).astype(np.float32)
    box, shape = [[1, 5], [0, 5], [2, 8]], (7, 5, 9)
    saved = labels.revert_cropping_on_probabilities(labels.apply_inference_nonlin(logits), box, shape).numpy()
    found = foreground_probability_at(np.ones(shape, bool), logits, np.array(box), by_region)
    np.testing.assert_allclose(found, saved.max(axis=0) if by_region else saved[1], atol=1e-6)


@pytest.mark.parametrize("preset", ["lou2021", "dworkin2018"])
@pytest.mark.parametrize("grid_shape", GRIDS)
def test_acls_finds_what_it_finds_with_the_probability_of_the_whole_image(grid_shape, preset):
    # One lesion reaches the border of the image, another stands alone.
    lesions = balls(SHAPE, [(14, 12, 12), (14, 12, 17), (2, 16, 20), (18, 14, 28)], 4.0, SPACING)
    plans = small_plans(spacing_mm=SPACING)
    settings = InstantiationSettings(method="acls", acls_preset=preset, min_volume_mm3=0, min_extent_mm=0)
    plans["conflunet"] = {"instantiation": settings.to_dict()}
    output = output_of(lesions, grid_shape)
    properties = {
        "spacing": SPACING,
        "bbox_used_for_cropping": [(0, n) for n in SHAPE],
        "shape_before_cropping": SHAPE,
    }
    found = instances_from_output((lesions > 0).astype(np.int32), output, properties, *of_model(plans), dataset_json())
    probability = foreground_probability_at(np.ones(SHAPE, bool), output[:2], BOX)
    expected = instantiate(lesions > 0, SPACING, settings, probability=probability)
    assert expected.report["n_centers"] >= 4
    np.testing.assert_array_equal(found.result.instances, expected.instances)
    # Four sigmas of 1.2 mm and two voxels for the differences; nothing where the preset masks the probability.
    reach = {"lou2021": (0, 0, 0), "dworkin2018": (5, 7, 6)}[preset]
    at = np.argwhere(lesions)
    needed = np.zeros(SHAPE, bool)
    needed[tuple(slice(max(a - r, 0), b + r + 1) for a, b, r in zip(at.min(0), at.max(0), reach, strict=True))] = True
    needed &= (lesions > 0) | (preset == "dworkin2018")
    assert not needed.all()
    np.testing.assert_array_equal(found.output.probability, np.where(needed, probability, 0))


def test_cores_of_a_prediction_become_instances():
    labels = BorderCore.of(balls(SHAPE, [(14, 12, 12), (14, 12, 17)], 4.0, SPACING), SPACING).labels
    plans = small_plans(spacing_mm=SPACING)
    settings = InstantiationSettings(method="border_core", min_volume_mm3=0, min_extent_mm=0)
    plans["conflunet"] = {"instantiation": settings.to_dict()}
    properties = {"spacing": SPACING, "bbox_used_for_cropping": BOX.tolist(), "shape_before_cropping": SHAPE}
    output = np.zeros((3 + 4, *SHAPE), np.float32)
    made = instances_from_output(labels, output, properties, *of_model(plans), dataset_json(LABELS))
    np.testing.assert_array_equal(made.result.instances, instantiate_border_core(labels, SPACING))
    assert made.result.instances.max() == 2


def test_a_case_knows_the_id_that_no_lesion_gets():
    lesions = balls(SHAPE, [(14, 12, 12)], 4.0, SPACING)
    plans = small_plans(spacing_mm=SPACING)
    plans["conflunet"] = {"instantiation": InstantiationSettings(method="cc").to_dict()}
    properties = {"spacing": SPACING, "bbox_used_for_cropping": BOX.tolist(), "shape_before_cropping": SHAPE}
    arguments = (lesions > 0).astype(int), output_of(lesions, SHAPE), properties, *of_model(plans)
    declared = dataset_json() | {"instances": {"unknown": 1}}
    assert [instances_from_output(*arguments, one).output.unknown for one in (dataset_json(), declared)] == [None, 1]
