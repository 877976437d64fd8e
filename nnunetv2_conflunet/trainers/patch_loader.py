"""nnU-Net's loader of patches, with the centers of mass of whole instances.

The loader crops instance maps like labels. A lesion that the crop cuts has a center that cannot be seen in the crop but
is stored beside the map (:mod:`.preprocessing.instance_centers`). nnU-Net tells its transforms neither the case nor the
position of a crop, so this loader adds the centers to what they get.
"""

from pathlib import Path
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.preprocessing.instance_centers import centers_file, centers_in_crop
from nnunetv2_conflunet.trainers.augmentation import CENTERS


class CasesWithCenters:
    """A dataset of nnU-Net that also remembers the centers of the case that it loaded last.

    Args:
        dataset: its ``folder_with_segs_from_previous_stage`` is the folder of instance maps.

    Attributes:
        identifiers: names of its cases.
        centers: (N, 4) table of :func:`.centers_of_map`; None if it is not stored, as in folders copied from elsewhere.
    """

    def __init__(self, dataset: nnUNetBaseDataset):
        self.dataset = dataset
        self.identifiers = dataset.identifiers
        self.centers: np.ndarray | None = None

    def load_case(self, identifier: str) -> tuple:
        """Data, segmentation, instance map and properties of a case."""
        path = centers_file(Path(self.dataset.folder_with_segs_from_previous_stage), identifier)
        self.centers = np.load(path) if path.is_file() else None
        return self.dataset.load_case(identifier)


class CropTransforms(ComposeTransforms):
    """The transforms of a loader, whose data also gets the known centers.

    Attributes:
        centers: in voxels of the crop that comes next; None if they are not known.
    """

    centers: InstanceCenters | None = None

    def apply(self, data_dict: dict, **params: Any) -> dict:
        """Add the centers, then transform."""
        if self.centers is not None:
            data_dict[CENTERS] = self.centers
        return super().apply(data_dict, **params)


class InstancePatchLoader(nnUNetDataLoader):
    """nnU-Net's loader, whose transforms also get the centers of the case in voxels of the crop, if they are stored."""

    transforms: CropTransforms

    def __init__(self, data: nnUNetBaseDataset, *args: Any, transforms: ComposeTransforms, **kwargs: Any):
        crop_transforms = CropTransforms(transforms.transforms)
        super().__init__(CasesWithCenters(data), *args, transforms=crop_transforms, **kwargs)

    def get_bbox(self, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """As in nnU-Net, which then crops the case that it loaded last and transforms the crop."""
        lower, upper = super().get_bbox(*args, **kwargs)
        table, dim = self._data.centers, 2 if self.patch_size_was_2d else 3
        self.transforms.centers = None if table is None else centers_in_crop(table, lower, dim)
        return lower, upper
