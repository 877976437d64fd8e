"""The transform that pastes lesions into training patches, some of them so that they touch another lesion.

Instances of pasted lesions are known, so the heads learn to separate touching lesions even where nobody separated those
of the dataset. After CarveMix (Zhang et al., NeuroImage 2023), which pastes lesions with their surroundings to train a
segmentation; here a single lesion is pasted without them, its intensities shifted to those around its new place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunetv2_conflunet.preprocessing.lesion_crops import CaseCrops, crops_file, prepare_lesion_crops
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.trainers.pasting.lesions import Lesion, LesionStore, any_row
from nnunetv2_conflunet.trainers.pasting.patch import Patch
from nnunetv2_conflunet.utilities.errors import InputError

# Places tried for a lesion before it is given up.
ATTEMPTS = 20
# Of the lesions that do not touch another one, this part is placed near one, up to this distance.
NEAR, NEAR_MM = 0.5, 6.0
# Directions to the neighbors of a voxel, by the number of axes.
STEPS = {dim: [np.array(step) for step in product((-1, 0, 1), repeat=dim) if any(step)] for dim in (2, 3)}


@dataclass(frozen=True)
class PastingSettings:
    """How lesions are pasted into training patches.

    Attributes:
        probability: that lesions are pasted into a patch.
        max_number: of lesions in a patch; the number is drawn from 1 to it.
        touching: probability that a pasted lesion touches one that is there.

    Raises:
        InputError: a value is out of range.

    >>> PastingSettings(probability=0.2).max_number
    3
    """

    probability: float = 0.6
    max_number: int = 3
    touching: float = 0.7

    def __post_init__(self):
        for name in ("probability", "touching"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Pasting: {name} is {getattr(self, name)}; give a value between 0 and 1.")
        if not (isinstance(self.max_number, int) and self.max_number >= 1):
            raise InputError(f"Pasting: max_number is {self.max_number}; give a whole number from 1.")


class PasteLesions(BasicTransform):
    """The first transform of a training patch: it pastes lesions into the middle of the loaded crop.

    A pasted lesion lies in the image's nonzero region, on background that is labeled, where intensities are like those
    around the dataset's own lesions. It covers no voxel of another lesion. A patch never has more lesions than a case
    of the dataset.

    Args:
        store: the lesions.
        settings: how often, how many, and how many of them touch.
    """

    def __init__(self, store: LesionStore, settings: PastingSettings):
        super().__init__()
        self.store = store
        self.settings = settings

    def get_parameters(self, **data_dict) -> dict:
        """Draw the seed of the patch, like nnU-Net's transforms, from NumPy's global generator."""
        return {"seed": np.random.randint(2**31)}

    def apply(self, data_dict: dict, **params) -> dict:
        """Paste into image and segmentation, whose channels are (semantic, instances), and add the centers."""
        rng = np.random.default_rng(params["seed"])
        if rng.random() >= self.settings.probability:
            return data_dict
        patch = Patch(data_dict, self.store.patch_size)
        for _ in range(rng.integers(self.settings.max_number) + 1):
            if patch.n_lesions < self.store.most_lesions:
                self._paste_one(patch, rng)
        return {**data_dict, **patch.data()}

    def _paste_one(self, patch: Patch, rng: np.random.Generator) -> None:
        """Paste a random lesion at the first of a number of random places where it fits."""
        lesion = self.store.draw(patch.instances.ndim, rng)
        if lesion is None:
            return
        touching, near = rng.random() < self.settings.touching, rng.random() < NEAR
        for _ in range(ATTEMPTS):
            if patch.anchors and (touching or near):
                shift = self._place_beside(patch, lesion, 0.0 if touching else rng.uniform(0, NEAR_MM), rng)
            else:
                shift = rng.integers(patch.low, patch.high) - any_row(lesion.voxels, rng)
            if patch.paste(lesion, shift, self.store):
                return

    def _place_beside(self, patch: Patch, lesion: Lesion, gap_mm: float, rng: np.random.Generator) -> np.ndarray:
        """Where the lesion's crop begins if it is moved toward a lesion of the patch until they touch, or almost."""
        step = any_row(STEPS[patch.instances.ndim], rng)
        n_between = int(gap_mm / np.linalg.norm(step * self.store.spacing_mm))
        last = _walk(patch.instances, any_row(any_row(patch.anchors, rng), rng), step)
        return last + step * (1 + n_between) - _walk(lesion.inside, any_row(lesion.voxels, rng), -step)


def prepare_pasting(
    prepared: PreprocessedInstances, cases: Sequence[str], settings: PastingSettings, num_processes: int
) -> tuple[list[PasteLesions], str]:
    """Cut out lesions where that has not been done; the transform, none if there is no lesion, and what the log says.

    Args:
        prepared: the instance maps of the configuration.
        cases: whose lesions are pasted, those for training.
        settings: how they are pasted.
        num_processes: worker processes.

    Raises:
        InputError: lesions must be cut out, and the folder is read-only.
    """
    prepare_lesion_crops(prepared, num_processes)
    files = [CaseCrops(crops_file(prepared.folder, case)) for case in cases]
    store = LesionStore(files, prepared.configuration.spacing, prepared.configuration.patch_size)
    transforms = [PasteLesions(store, settings)] if store.n_lesions else []
    return transforms, f"Pasting lesions: {settings}, {store.describe()}"


def _walk(array: np.ndarray, voxel: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The last voxel on a straight way that has the same value as the first one."""
    value = array[tuple(voxel)]
    while ((voxel + step >= 0) & (voxel + step < array.shape)).all() and array[tuple(voxel + step)] == value:
        voxel = voxel + step
    return voxel
