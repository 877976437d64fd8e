"""Lesions to paste, and patches of which every value is known."""

import numpy as np
import torch

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters
from nnunetv2_conflunet.preprocessing.lesion_crops import CaseCrops, crops_of_case, write_crops
from nnunetv2_conflunet.trainers.augmentation import CENTERS
from nnunetv2_conflunet.trainers.pasting.lesions import LesionStore

# Intensities of the lesions' own case: surroundings and lesion, in two channels.
LEVEL, LESION_VALUE = (1.0, 10.0), (6.0, 8.0)


def store_in(
    path,
    instances=None,
    spacing_mm=(1.0, 1.0, 1.0),
    n_lesions=50,
    label=1,
    patch_size=(30, 32, 34),
    values=(LESION_VALUE, LEVEL),
):
    """A store with the lesions of one case; by default one of 3 x 3 x 3 voxels and one of 1 x 1 x 4.

    `label` may also be an array with a label for each voxel; `values` are those of lesions and surroundings.
    """
    if instances is None:
        instances = np.zeros((30, 30, 30), int)
        instances[8:11, 8:11, 8:11] = 1
        instances[20, 20, 10:14] = 2
    image = np.stack([np.where(instances > 0, a, b) for a, b in zip(*values, strict=True)])
    ids = np.unique(instances[instances > 0])
    crops = crops_of_case(image, label * (instances > 0), instances, ids, spacing_mm)
    write_crops(list(crops), n_lesions, path)
    return LesionStore([CaseCrops(path)], spacing_mm, patch_size[-len(spacing_mm) :])


def patch_data(instances, values=LEVEL, semantic=None):
    """Data of nnU-Net's transforms: constant images with these values, and the centers of all lesions."""
    semantic = (instances > 0).astype(np.int16) if semantic is None else semantic
    image = np.stack([np.full(instances.shape, value, np.float32) for value in values])
    return {
        "image": torch.from_numpy(image),
        "segmentation": torch.from_numpy(np.stack([semantic, instances]).astype(np.int16)),
        CENTERS: InstanceCenters.of(instances),
    }
