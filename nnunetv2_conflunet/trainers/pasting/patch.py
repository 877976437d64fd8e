"""A patch into which lesions are pasted."""

import cc3d
import numpy as np
import torch

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters, groups, lesion_voxels
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.preprocessing.lesion_crops import NEITHER, SURROUNDINGS
from nnunetv2_conflunet.trainers.augmentation import CENTERS
from nnunetv2_conflunet.trainers.pasting.lesions import Lesion, LesionStore

# Part of its voxels that a pasted lesion may lose to a lesion that is there.
LARGEST_LOSS = 0.2


class Patch:
    """A loaded crop into which lesions are pasted.

    Args:
        data: of nnU-Net's transforms, with the centers; it is left as it is.
        patch_size: of the network. The loaded crop is larger, so that it can be rotated and scaled; most of what lies
            outside the middle of it is cut off.

    Attributes:
        semantic: (...) int16 labels.
        instances: (...) int16 ids.
        centers: the known ones.
        n_lesions: number of lesions in the crop, with those pasted so far.
        low, high: (dim,) half-open range of voxels in the middle of the crop, of the size of a patch.
        anchors: voxels, (N, dim), of each lesion with a center that others may touch: those in the middle.
    """

    def __init__(self, data: dict, patch_size: np.ndarray):
        # Copies, since the loader may have handed out a part of a file.
        self.image = data["image"].clone().numpy()
        self.segmentation = data["segmentation"].clone().numpy()
        self.semantic, self.instances = self.segmentation
        self.centers: InstanceCenters = data[CENTERS]
        self.low = np.maximum(np.array(self.instances.shape) - patch_size, 0) // 2
        self.high = np.minimum(self.low + patch_size, self.instances.shape)
        index, ids = lesion_voxels(self.instances)
        voxels = np.stack(index, axis=1)
        in_middle = ((voxels >= self.low) & (voxels < self.high)).all(axis=1)
        usable = in_middle & np.isin(ids, self.centers.ids)
        self.anchors = [voxels[usable][members] for _, members in groups(ids[usable])]
        present = np.unique(ids)
        self.n_lesions = len(present)
        # Lesions outside the crop have centers, too.
        self.next_id = max([0, *self.centers.ids, *present[present != UNKNOWN]]) + 1

    def data(self) -> dict:
        """The parts of the data that pasting changes."""
        image, segmentation = map(torch.from_numpy, (self.image, self.segmentation))
        return {"image": image, "segmentation": segmentation, CENTERS: self.centers}

    def paste(self, lesion: Lesion, shift: np.ndarray, store: LesionStore) -> bool:
        """Paste a lesion whose crop begins at `shift`, if it fits there; returns whether it does."""
        voxels = lesion.voxels + shift
        shape = np.array(self.instances.shape)
        if (voxels < 0).any() or (voxels >= shape).any() or self.next_id >= UNKNOWN:
            return False
        index = tuple(voxels.T)
        free = self.semantic[index] == 0
        if (self.instances[index][~free] <= 0).any() or np.mean(~free) > LARGEST_LOSS:
            return False
        if not free.all() and cc3d.connected_components(_filled(lesion.voxels[free])).max() > 1:
            return False
        low, high = np.maximum(shift, 0), np.minimum(shift + lesion.weight.shape, shape)
        window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        source = tuple(slice(a, b) for a, b in zip(low - shift, high - shift, strict=True))
        weight = np.where(self.semantic[window] == 0, lesion.weight[source], NEITHER)
        pixels = self.image[(slice(None), *window)]
        around = pixels[:, weight == SURROUNDINGS]
        if not store.is_usual(around):
            return False
        brighter = (around.mean(axis=1) - lesion.level).reshape(-1, *[1] * len(shape))
        pixels += np.clip(weight, 0, 1) * (lesion.pixels[(slice(None), *source)] + brighter - pixels)
        self._label(voxels[free], lesion.labels[lesion.inside][free])
        return True

    def _label(self, voxels: np.ndarray, labels: np.ndarray) -> None:
        """Make these voxels a lesion."""
        self.semantic[tuple(voxels.T)], self.instances[tuple(voxels.T)] = labels, self.next_id
        positions = np.concatenate([self.centers.voxels, [voxels.mean(axis=0)]])
        self.centers = InstanceCenters(np.append(self.centers.ids, self.next_id), positions)
        self.anchors.append(voxels)
        self.n_lesions += 1
        self.next_id += 1


def _filled(voxels: np.ndarray) -> np.ndarray:
    """The smallest array that holds these voxels, (N, dim), as uint8: cc3d 4.1 may fail on bool."""
    low = voxels.min(axis=0)
    array = np.zeros(voxels.max(axis=0) - low + 1, np.uint8)
    array[tuple((voxels - low).T)] = 1
    return array
