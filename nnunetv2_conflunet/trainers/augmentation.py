"""nnU-Net's augmentation with an instance channel, followed by the targets of the heads.

nnU-Net's loader passes the instance map as the second segmentation channel. Our loader adds the centers of mass of
whole instances (:mod:`.patch_loader`). Otherwise, those of complete instances are computed in the loaded crop, which
has a margin around the patch. The spatial transforms move these centers with the image, so a lesion cut by the border
of the patch still points to its true center.
"""

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.trainers.targets import MOST_CENTERS, coded_targets

# Key of the centers in the data of nnU-Net's transforms, which ignore it.
CENTERS = "instance_centers"
MOVES_NOTHING = (
    ImageOnlyTransform,
    SegOnlyTransform,
    MaskImageTransform,
    Convert3DTo2DTransform,
    Convert2DTo3DTransform,
)


def with_instance_targets(
    stock: ComposeTransforms,
    spacing_mm: tuple[float, ...],
    sigma_mm: float,
    ignore_label: int | None,
    first: Sequence[BasicTransform] = (),
    most_centers: int = MOST_CENTERS,
) -> ComposeTransforms:
    """nnU-Net's transforms for training or validation patches, extended by instances and the targets of the heads.

    Args:
        stock: the transforms of nnU-Net's trainer. After an unknown transform, which may move voxels, the centers are
            computed again.
        spacing_mm: of the patch.
        sigma_mm: standard deviation of the heatmap's Gaussians.
        ignore_label: of the semantic labels, or None.
        first: transforms of the crop before nnU-Net's, which keep the centers up to date.
        most_centers: of a patch at most; with few of them, the loader hands over less.

    Returns:
        Transforms that take a segmentation with the channels (semantic, instances) and turn it into a list: the
        semantic scales of deep supervision (without it, full resolution only), then codes and centers for the targets
        of the heads, see :func:`.targets.coded_targets`.
    """
    transforms: list[BasicTransform] = [FindInstanceCenters(ignore_label, unless_known=True), *first]
    of_semantic: list[BasicTransform] = []
    for transform in stock.transforms:
        if isinstance(transform, ConvertSegmentationToRegionsTransform | DownsampleSegForDSTransform):
            of_semantic.append(transform)
        else:
            transforms.append(_with_centers(transform, ignore_label))
    transforms.append(InstanceTargetTransform(of_semantic, spacing_mm, sigma_mm, ignore_label, most_centers))
    return ComposeTransforms(transforms)


def _with_centers(transform: BasicTransform, ignore_label: int | None) -> BasicTransform:
    """A transform of nnU-Net, which also moves the centers if it moves voxels, or finds them again."""
    if type(transform) is RandomTransform:
        return RandomTransform(_with_centers(transform.transform, ignore_label), transform.apply_probability)
    if type(transform) is OneOfTransform:
        return OneOfTransform([_with_centers(one, ignore_label) for one in transform.list_of_transforms])
    if type(transform) is SpatialTransform:
        return InstanceSpatialTransform(transform, ignore_label)
    if type(transform) is MirrorTransform:
        return InstanceMirrorTransform(transform.allowed_axes)
    if type(transform) is Rot90Transform:
        drawn = transform.num_axis_combinations, transform.num_rot_per_combination
        return InstanceRot90Transform(*drawn, transform.allowed_axes)
    if type(transform) is TransposeAxesTransform:
        return InstanceTransposeTransform(transform.allowed_axes)
    if isinstance(transform, MOVES_NOTHING):
        return transform
    return ComposeTransforms([transform, FindInstanceCenters(ignore_label)])


class FindInstanceCenters(BasicTransform):
    """Find the center of mass of every known, complete instance, which touches neither crop border nor ignore label.

    Args:
        ignore_label: of the semantic labels, or None.
        unless_known: keep the centers that the data already has.
    """

    def __init__(self, ignore_label: int | None = None, *, unless_known: bool = False):
        super().__init__()
        self.ignore_label = ignore_label
        self.unless_known = unless_known

    def apply(self, data_dict: dict, **params) -> dict:
        """Add the centers in voxels of the crop."""
        if self.unless_known and CENTERS in data_dict:
            return data_dict
        # In nnU-Net's pseudo-2D augmentation the slices of both channels are stacked along the channel axis.
        semantic, instances = (
            channel[0] if len(channel) == 1 else channel for channel in np.split(data_dict["segmentation"].numpy(), 2)
        )
        ignored = None if self.ignore_label is None else semantic == self.ignore_label
        centers = InstanceCenters.of(instances).without_cut(instances, ignored)
        data_dict[CENTERS] = centers.without(np.array([UNKNOWN]))
        return data_dict


class InstanceSpatialTransform(BasicTransform):
    """nnU-Net's spatial transform: stock sampling of image and semantic channel, nearest neighbor for instances.

    The stock interpolation takes one pass over the patch per label, here per instance; nearest neighbor takes one pass
    in total, and the smooth class borders of the stock interpolation do not matter for ids.

    Args:
        stock: the transform to extend; it draws the same random numbers as before.
        ignore_label: of the semantic labels, or None.
    """

    def __init__(self, stock: SpatialTransform, ignore_label: int | None = None):
        super().__init__()
        self.stock = stock
        self.find_again = FindInstanceCenters(ignore_label)
        self.nearest = copy(stock)
        self.nearest.mode_seg = "nearest"

    def get_parameters(self, **data_dict) -> dict:
        """The parameters that the stock transform draws."""
        return self.stock.get_parameters(**data_dict)

    def apply(self, data_dict: dict, **params) -> dict:
        """Move image, both segmentation channels and the centers."""
        data_dict["segmentation"], instances = data_dict["segmentation"].chunk(2)
        data_dict = self.stock.apply(data_dict, **params)
        instances = self.nearest.apply({"segmentation": instances}, **params)["segmentation"]
        data_dict["segmentation"] = torch.cat((data_dict["segmentation"], instances))
        if params["elastic_offsets"] is not None:
            # An elastic deformation has no closed-form inverse: keep only instances that are complete in the patch.
            return self.find_again(**data_dict)
        data_dict[CENTERS] = self._moved(data_dict[CENTERS], params)
        return data_dict

    def _moved(self, centers: InstanceCenters, params: dict) -> InstanceCenters:
        """The positions of the centers in the patch; in pseudo-2D the first axis is unchanged."""
        location = np.array(params["center_location_in_pixels"], float)
        patch = np.array(self.stock.patch_size)
        dim = len(patch)
        positions = centers.voxels.copy()
        if params["grid"] is None:
            positions[:, -dim:] -= np.floor(location) - patch // 2
        else:
            # For a patch voxel at p relative to the patch center, the grid samples the input at affine @ p from
            # `location`.
            from_location = positions[:, -dim:] - (location - 0.5)
            positions[:, -dim:] = from_location @ np.linalg.inv(params["affine"]).T + (patch - 1) / 2
        return InstanceCenters(centers.ids, positions)


class InstanceMirrorTransform(MirrorTransform):
    """nnU-Net's mirroring, applied to the centers as well."""

    def apply(self, data_dict: dict, **params) -> dict:
        """Flip image, segmentation and centers along the drawn axes."""
        size = data_dict["image"].shape[1:]
        positions = data_dict[CENTERS].voxels.copy()
        for axis in params["axes"]:
            positions[:, axis] = size[axis] - 1 - positions[:, axis]
        data_dict[CENTERS] = InstanceCenters(data_dict[CENTERS].ids, positions)
        return super().apply(data_dict, **params)


class InstanceRot90Transform(Rot90Transform):
    """nnU-Net's rotation by right angles, applied to the centers as well."""

    def apply(self, data_dict: dict, **params) -> dict:
        """Rotate image, segmentation and centers as drawn."""
        size = list(data_dict["image"].shape[1:])
        positions = data_dict[CENTERS].voxels.copy()
        for n_turns, axes in zip(params["num_rot_per_combination"], params["axis_combinations"], strict=True):
            a, b = (axis - 1 for axis in axes)
            for _ in range(n_turns % 4):
                # The end of axis b becomes the beginning of axis a.
                positions[:, a], positions[:, b] = size[b] - 1 - positions[:, b], positions[:, a].copy()
                size[a], size[b] = size[b], size[a]
        data_dict[CENTERS] = InstanceCenters(data_dict[CENTERS].ids, positions)
        return super().apply(data_dict, **params)


class InstanceTransposeTransform(TransposeAxesTransform):
    """nnU-Net's exchange of axes, applied to the centers as well."""

    def apply(self, data_dict: dict, **params) -> dict:
        """Exchange the drawn axes of image, segmentation and centers."""
        order = np.array(params["axis_order"][1:]) - 1
        data_dict[CENTERS] = InstanceCenters(data_dict[CENTERS].ids, data_dict[CENTERS].voxels[:, order])
        return super().apply(data_dict, **params)


class InstanceTargetTransform(BasicTransform):
    """The last transform: it turns the instance channel into coded targets of the heads.

    Args:
        of_semantic: nnU-Net's transforms of the semantic channel alone: into regions, and into the scales of deep
            supervision, where there are any.
        spacing_mm: of the patch.
        sigma_mm: standard deviation of the heatmap's Gaussians.
        ignore_label: of the semantic labels, or None.
        most_centers: of a patch at most.
    """

    def __init__(
        self,
        of_semantic: Sequence[BasicTransform],
        spacing_mm: tuple[float, ...],
        sigma_mm: float,
        ignore_label: int | None,
        most_centers: int = MOST_CENTERS,
    ):
        super().__init__()
        self.of_semantic = tuple(of_semantic)
        self.spacing_mm = tuple(spacing_mm)
        self.sigma_mm = sigma_mm
        self.ignore_label = ignore_label
        self.most_centers = most_centers

    def apply(self, data_dict: dict, **params) -> dict:
        """Replace the segmentation by the list of targets."""
        semantic, instances = data_dict["segmentation"][:1], data_dict["segmentation"][1].numpy()
        ignored = None if self.ignore_label is None else semantic[0].numpy() == self.ignore_label
        centers = data_dict.pop(CENTERS)
        coded = coded_targets(instances, centers, ignored, self.spacing_mm, self.sigma_mm, self.most_centers)
        scales = ComposeTransforms(self.of_semantic)(segmentation=semantic)["segmentation"]
        scales = scales if isinstance(scales, list) else [scales]
        data_dict["segmentation"] = [*scales, *map(torch.from_numpy, coded)]
        return data_dict
