import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5
from support import balls, unpacked

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.trainers.augmentation import (
    CENTERS,
    FindInstanceCenters,
    InstanceMirrorTransform,
    InstanceSpatialTransform,
    with_instance_targets,
)
from nnunetv2_conflunet.trainers.targets import FIRST_ROW, HEATMAP, HEATMAP_AND_OFFSETS, NOTHING, OFFSETS, VALIDITY


def sample(shape=(48, 44, 52), seed=0, radius=4.0):
    """Image, and segmentation with the channels (semantic, instances), of balls well inside."""
    rng = np.random.default_rng(seed)
    instances = balls(shape, rng.uniform(14, np.array(shape) - 14, (3, len(shape))), radius)
    image = torch.from_numpy(rng.normal(size=(1, *shape)).astype(np.float32))
    segmentation = torch.from_numpy(np.stack([instances > 0, instances]).astype(np.int16))
    return {"image": image, "segmentation": segmentation}


def spatial(patch_size, **changes):
    arguments = {
        "p_rotation": 1.0,
        "rotation": (-0.5, 0.5),
        "p_scaling": 1.0,
        "scaling": (0.7, 1.4),
        "p_synchronize_scaling_across_axes": 0.0,
        "border_mode_seg": "constant",
        "padding_value_seg": -1,
        **changes,
    }
    return SpatialTransform(patch_size, patch_center_dist_from_border=0, random_crop=False, **arguments)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape, patch", [((48, 44, 52), (40, 41, 42)), ((60, 55), (50, 45))])
def test_centers_move_with_the_instances_through_rotation_and_scaling(seed, shape, patch):
    np.random.seed(seed)
    data = FindInstanceCenters()(**sample(shape, seed))
    data = InstanceSpatialTransform(spatial(patch))(**data)
    instances = data["segmentation"][1].numpy()
    centers = data[CENTERS]
    assert len(centers.ids) == len(np.unique(sample(shape, seed)["segmentation"][1])) - 1
    for i, center in zip(centers.ids, centers.voxels, strict=True):
        voxels = np.argwhere(instances == i)
        inside = (voxels > 0).all() and (voxels < np.array(patch) - 1).all()
        if len(voxels) and inside:
            np.testing.assert_allclose(center, voxels.mean(0), atol=0.35)


@pytest.mark.parametrize("patch", [(20, 21, 22), (48, 44, 52), (60, 60, 60)])
def test_centers_move_exactly_with_a_crop_or_a_padding(patch):
    data = FindInstanceCenters()(**sample())
    stock = spatial(patch, p_rotation=0.0, p_scaling=0.0)
    data = InstanceSpatialTransform(stock)(**data)
    instances = data["segmentation"][1].numpy()
    for i, center in zip(data[CENTERS].ids, data[CENTERS].voxels, strict=True):
        voxels = np.argwhere(instances == i)
        if len(voxels) == np.count_nonzero(sample()["segmentation"][1] == i):
            np.testing.assert_allclose(center, voxels.mean(0), atol=1e-9)


def test_the_semantic_channel_and_the_image_are_what_nnunet_makes_of_them():
    stock = spatial((40, 41, 42))
    np.random.seed(3)
    ours = InstanceSpatialTransform(stock)(**FindInstanceCenters()(**sample()))
    np.random.seed(3)
    data = sample()
    theirs = stock(image=data["image"], segmentation=data["segmentation"][:1])
    assert torch.equal(ours["image"], theirs["image"])
    assert torch.equal(ours["segmentation"][:1], theirs["segmentation"])


def test_ids_are_sampled_by_nearest_neighbor():
    np.random.seed(0)
    data = InstanceSpatialTransform(spatial((40, 41, 42)))(**FindInstanceCenters()(**sample()))
    assert set(np.unique(data["segmentation"][1])) <= {-1, 0, 1, 2, 3}


def test_a_lesion_cut_by_the_patch_still_points_to_its_true_center():
    shape, patch = (40, 40, 40), (16, 16, 16)
    # The patch is voxels 12 to 27; the ball from 8.5 to 15.5 along the first axis is cut, its center outside.
    instances = balls(shape, [(11, 20, 20)], 3.6)
    data = {
        "image": torch.zeros((1, *shape)),
        "segmentation": torch.from_numpy(np.stack([instances > 0, instances]).astype(np.int16)),
    }
    stock = ComposeTransforms([spatial(patch, p_rotation=0.0, p_scaling=0.0)])
    result = with_instance_targets(stock, (2.0, 1.0, 1.0), 2.0, None)(**data)
    target = unpacked(result["segmentation"][1:], (2.0, 1.0, 1.0), 2.0)
    valid = target[VALIDITY] == HEATMAP_AND_OFFSETS
    np.testing.assert_array_equal(valid, instances[12:28, 12:28, 12:28] > 0)
    # From voxel (12, 20, 20), the patch's (0, 8, 8), the center is one voxel of 2 mm back.
    assert target[OFFSETS][:, 0, 8, 8].tolist() == [-2, 0, 0]
    assert target[HEATMAP][0, 8, 8] == pytest.approx(np.exp(-0.5), abs=1e-3)


def test_a_lesion_cut_by_the_loaded_crop_is_left_out():
    shape = (20, 20, 20)
    instances = balls(shape, [(0, 10, 10), (10, 10, 10)], 3.0)
    data = {
        "image": torch.zeros((1, *shape)),
        "segmentation": torch.from_numpy(np.stack([instances > 0, instances]).astype(np.int16)),
    }
    result = with_instance_targets(ComposeTransforms([]), (1, 1, 1), 2.0, None)(**data)
    target = unpacked(result["segmentation"][1:], (1, 1, 1), 2.0)
    np.testing.assert_array_equal(target[VALIDITY] == HEATMAP_AND_OFFSETS, instances == 2)
    # Nothing is learned on it nor within two sigmas, 4 voxels, of it.
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    cut = np.argwhere(instances == 1)
    near = np.array([(np.abs(cut - voxel).max(axis=1) <= 4).any() for voxel in grid.reshape(-1, 3)]).reshape(shape)
    np.testing.assert_array_equal(target[VALIDITY] == 0, near & (instances != 2))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)])
def test_mirroring_mirrors_the_centers(axes):
    data = FindInstanceCenters()(**sample())
    transform = InstanceMirrorTransform(allowed_axes=axes)
    transform.get_parameters = lambda **_: {"axes": list(axes)}
    data = transform(**data)
    instances = data["segmentation"][1].numpy()
    for i, center in zip(data[CENTERS].ids, data[CENTERS].voxels, strict=True):
        np.testing.assert_allclose(center, np.argwhere(instances == i).mean(0), atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "transform", [Rot90Transform(2, (0, 1, 2, 3), allowed_axes={0, 1, 2}), TransposeAxesTransform({0, 2})]
)
def test_rotation_by_right_angles_and_exchange_of_axes_move_the_centers(transform, seed):
    np.random.seed(seed)
    # Rotation also exchanges the axes' lengths.
    shape = (48, 44, 52) if isinstance(transform, Rot90Transform) else (48, 44, 48)
    data = FindInstanceCenters()(**sample(shape))
    (moving,) = with_instance_targets(ComposeTransforms([transform]), (1, 1, 1), 2.0, None).transforms[1:-1]
    data = moving(**data)
    instances = data["segmentation"][1].numpy()
    assert len(data[CENTERS].ids) == 3
    for i, center in zip(data[CENTERS].ids, data[CENTERS].voxels, strict=True):
        np.testing.assert_allclose(center, np.argwhere(instances == i).mean(0), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_with_strong_augmentation_a_lesion_cut_by_the_patch_has_its_center(seed):
    np.random.seed(seed)
    torch.manual_seed(seed)
    stock = nnUNetTrainerDA5.get_training_transforms((24, 24, 24), (-0.5, 0.5), None, (0, 1, 2), False)
    instances = np.zeros((32, 32, 32), np.int16)
    instances[14:18, :, 14:18] = 7
    result = with_instance_targets(stock, (1.0, 1.0, 1.0), 2.0, None)(
        image=torch.zeros((1, *instances.shape)),
        segmentation=torch.from_numpy(np.stack([instances > 0, instances]).astype(np.int16)),
        **{CENTERS: InstanceCenters.of(instances)},
    )["segmentation"]
    validity = unpacked(result[1:], (1.0, 1.0, 1.0), 2.0)[VALIDITY]
    assert not (validity == NOTHING).any() and (validity == HEATMAP_AND_OFFSETS).sum() > 200


def test_after_an_elastic_deformation_centers_are_found_anew():
    np.random.seed(0)
    torch.manual_seed(0)
    stock = spatial((40, 41, 42), p_elastic_deform=1.0, elastic_deform_magnitude=(3, 3))
    data = InstanceSpatialTransform(stock)(**FindInstanceCenters()(**sample()))
    instances = data["segmentation"][1].numpy()
    for i, center in zip(data[CENTERS].ids, data[CENTERS].voxels, strict=True):
        np.testing.assert_allclose(center, np.argwhere(instances == i).mean(0), atol=1e-9)


def test_a_transform_that_nobody_knows_has_centers_found_anew():
    torch.manual_seed(0)
    np.random.seed(0)

    class Unknown(Rot90Transform):
        pass

    rotate = Unknown(num_axis_combinations=1, num_rot_per_combination=(1,), allowed_axes={0, 1})
    data = sample((40, 40, 40))
    target = with_instance_targets(ComposeTransforms([rotate]), (1, 1, 1), 2.0, None)(**data)["segmentation"]
    semantic, packed = target[0][0].numpy(), unpacked(target[1:], (1, 1, 1), 2.0)
    valid = packed[VALIDITY] == HEATMAP_AND_OFFSETS
    np.testing.assert_array_equal(valid, semantic > 0)
    # Every voxel points to where the heatmap is 1.
    voxels = np.argwhere(valid)
    pointed = np.rint(voxels + packed[OFFSETS][:, valid].T).astype(int)
    assert (packed[HEATMAP][tuple(pointed.T)] > 0.9).all()


def stock_transforms(patch_size, dummy_2d=False, scales=((1, 1, 1), (0.5, 0.5, 0.5))):
    return nnUNetTrainer.get_training_transforms(
        patch_size, (-0.5, 0.5), scales, (0, 1, 2), dummy_2d, use_mask_for_norm=[True]
    )


@pytest.mark.parametrize("dummy_2d", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_through_all_of_nnunets_augmentation_offsets_lead_to_peaks(seed, dummy_2d):
    """In the mm of an anisotropic patch, whatever was drawn: from each valid voxel its offset leads to a peak."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    patch, spacing = (24, 40, 40), np.array((3.0, 1.0, 1.0))
    shape = (24, 56, 56) if dummy_2d else (32, 56, 56)
    transforms = with_instance_targets(stock_transforms(patch, dummy_2d), tuple(spacing), 2.0, None)
    instances = balls(shape, [(12, 24, 24), (12, 24, 31), (14, 34, 28)], 3.3)
    result = transforms(
        image=torch.zeros((1, *shape)),
        segmentation=torch.from_numpy(np.stack([instances > 0, instances]).astype(np.int16)),
    )
    full, half, codes, centers = result["segmentation"]
    assert full.shape == codes.shape == (1, *patch) and half.shape == (1, 12, 20, 20)
    packed = unpacked((codes, centers), spacing.tolist(), 2.0)
    valid = packed[VALIDITY] == HEATMAP_AND_OFFSETS
    assert valid.any()
    voxels = np.argwhere(valid)
    pointed = voxels * spacing + packed[OFFSETS][:, valid].T
    # No more distinct ends than lesions, and the heatmap at a voxel is the Gaussian of its distance to the nearest.
    ends = np.unique(np.round(pointed, 1), axis=0)
    ends = ends[[not any(np.linalg.norm(e - f) < 0.5 for f in ends[:i]) for i, e in enumerate(ends)]]
    assert len(ends) <= 3
    distance = np.linalg.norm(voxels[:, None] * spacing - ends, axis=2).min(axis=1)
    np.testing.assert_allclose(packed[HEATMAP][valid], np.exp(-(distance**2) / 8), atol=0.06)


@pytest.mark.parametrize("ignore_label", [None, 3])
@pytest.mark.parametrize("scales", [None, ((1, 1, 1), (0.5, 0.5, 0.5))], ids=["full", "deep_supervision"])
@pytest.mark.parametrize("kind", ["training", "validation"])
def test_regions_are_those_of_nnunet(kind, scales, ignore_label):
    regions, patch = ((1, 2), 2), (40, 40, 40)
    if kind == "training":
        stock = nnUNetTrainer.get_training_transforms(
            patch, (-0.5, 0.5), scales, (0, 1, 2), False, [True], regions=regions, ignore_label=ignore_label
        )
    else:
        stock = nnUNetTrainer.get_validation_transforms(scales, regions=regions, ignore_label=ignore_label)
    instances = sample()["segmentation"][1:]
    labels = torch.where(instances > 0, 1 + instances % 2, 0)
    labels[0, :4] = 3 if ignore_label else 0
    results = []
    for transforms, channels in ((stock, labels), (with_instance_targets(stock, (1, 1, 1), 2.0, ignore_label), None)):
        np.random.seed(0)
        torch.manual_seed(0)
        channels = torch.cat([labels, instances]) if channels is None else channels
        results.append(transforms(image=sample()["image"], segmentation=channels.clone())["segmentation"])
    theirs, (*ours, codes, _) = results
    theirs = theirs if isinstance(theirs, list) else [theirs]
    assert len(ours) == len(theirs) and ours[0].shape[0] == 2 + (ignore_label is not None)
    assert ours[0][0].any() and ours[0][1].any() and (codes >= FIRST_ROW).any()
    assert all(torch.equal(mine, stocks) for mine, stocks in zip(ours, theirs, strict=True))


def targets_with_the_upper_slices_ignored(first):
    """Lesion 2 ends with slice 18 of the first axis; the others begin with slice 23."""
    data = sample()
    data["segmentation"][0][first:21] = 2
    instances = data["segmentation"][1].numpy()
    result = with_instance_targets(ComposeTransforms([]), (1, 1, 1), 2.0, 2)(**data)
    return unpacked(result["segmentation"][1:], (1, 1, 1), 2.0)[VALIDITY], instances


def test_the_ignore_label_masks_all_losses():
    validity, instances = targets_with_the_upper_slices_ignored(20)
    assert (validity[20:21] == NOTHING).all()
    labeled = np.delete(validity, 20, axis=0)
    assert ((labeled == HEATMAP_AND_OFFSETS) == (np.delete(instances, 20, axis=0) > 0)).all()
    assert (labeled != NOTHING).all()


def test_a_lesion_beside_the_ignore_label_may_go_on_there():
    validity, instances = targets_with_the_upper_slices_ignored(19)
    assert (validity[instances == 2] == NOTHING).all()
    assert (validity[(instances == 1) | (instances == 3)] == HEATMAP_AND_OFFSETS).all()


def near(voxels, shape, radius):
    """Whether a voxel is within so many voxels of any of some, along every axis."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, len(shape))
    found = [(np.abs(np.argwhere(voxels) - voxel) <= radius).all(axis=1).any() for voxel in grid]
    return np.array(found).reshape(shape)


def test_unknown_instances_are_left_out_with_their_margin_and_what_they_touch_is_learned():
    shape, spacing = (12, 24, 24), (2.0, 1.0, 1.0)
    instances = np.zeros(shape, np.int16)
    # A known lesion, unknown voxels at its side, and a second piece of them alone.
    instances[5:7, 6:10, 8:11] = 1
    instances[5:7, 6:10, 11:14] = instances[6, 20, 20] = UNKNOWN
    data = {"image": torch.zeros((1, *shape)), "segmentation": torch.from_numpy(np.stack([instances > 0, instances]))}
    stock = ComposeTransforms([])
    semantic, *coded = with_instance_targets(stock, spacing, 2.0, None)(**data)["segmentation"]
    assert ((semantic[0] == 1).numpy() == (instances > 0)).all()
    target = unpacked(coded, spacing, 2.0)
    np.testing.assert_array_equal(target[VALIDITY] == HEATMAP_AND_OFFSETS, instances == 1)
    # Two sigmas of 2 mm are two voxels along the first axis and four along the others.
    left_out = near(instances == UNKNOWN, shape, (2, 4, 4)) & (instances != 1)
    np.testing.assert_array_equal(target[VALIDITY] == NOTHING, left_out)
    # From the known lesion's voxel (5, 6, 8) to its own center (5.5, 7.5, 9).
    np.testing.assert_allclose(target[OFFSETS][:, 5, 6, 8], [1.0, 1.5, 1.0])


@pytest.mark.parametrize("elastic", [False, True])
@pytest.mark.parametrize("shape, patch", [((48, 44, 52), (40, 41, 42)), ((60, 55), (50, 45))])
def test_no_center_is_made_for_unknown_instances_however_they_are_moved(shape, patch, elastic):
    np.random.seed(0)
    torch.manual_seed(0)
    data = sample(shape)
    instances = data["segmentation"][1]
    instances[instances == 2] = UNKNOWN
    data = FindInstanceCenters()(**data)
    assert data[CENTERS].ids.tolist() == [1, 3]
    deformed = {"p_elastic_deform": 1.0, "elastic_deform_magnitude": (3, 3)} if elastic else {}
    data = InstanceSpatialTransform(spatial(patch, **deformed))(**data)
    assert set(np.unique(data["segmentation"][1])) <= {-1, 0, 1, 3, UNKNOWN}
    assert UNKNOWN in data["segmentation"][1] and 1 <= len(data[CENTERS].ids) <= 2
    assert UNKNOWN not in data[CENTERS].ids


@pytest.mark.parametrize("dummy_2d", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_through_all_of_nnunets_augmentation_nothing_is_learned_on_unknown_instances(seed, dummy_2d):
    np.random.seed(seed)
    torch.manual_seed(seed)
    patch, spacing = (24, 40, 40), (3.0, 1.0, 1.0)
    shape = (24, 56, 56) if dummy_2d else (32, 56, 56)
    instances = balls(shape, [(12, 24, 22), (12, 24, 34)], 5.0).astype(np.int16)
    instances[instances == 2] = UNKNOWN
    # The label tells the two apart, so that it can be compared with the targets after all augmentation.
    label = np.select([instances == UNKNOWN, instances == 1], [1, 2])
    segmentation = torch.from_numpy(np.stack([label, instances]).astype(np.int16))
    transforms = with_instance_targets(stock_transforms(patch, dummy_2d), spacing, 2.0, None)
    full, half, codes, centers = transforms(image=torch.zeros((1, *shape)), segmentation=segmentation)["segmentation"]
    label, validity = full[0].numpy(), unpacked((codes, centers), spacing, 2.0)[VALIDITY]
    assert centers.isfinite().all(dim=1).sum() == 1
    assert (label == 1).any() and (half == 1).any()
    # The label's smooth borders and the map's jagged ones differ by a voxel.
    assert (validity[label == 1] == HEATMAP_AND_OFFSETS).mean() < 0.02
    assert (validity[label == 2] == HEATMAP_AND_OFFSETS).mean() > 0.9
