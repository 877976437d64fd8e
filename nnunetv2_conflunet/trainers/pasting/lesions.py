"""The lesions that can be pasted into training patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2_conflunet.preprocessing.lesion_crops import LESION, CaseCrops

# Lesions are at most this fraction of the patch, so that there is room for them.
LARGEST_PART = 0.5
# Surroundings must have intensities like those of the dataset's own lesions, within these quantiles, and are not
# judged from fewer voxels.
USUAL, FEWEST_VOXELS = (0.05, 0.95), 10


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion to paste, with the axes of the patch.

    Attributes:
        pixels: (C, ...) intensities.
        weight: (...), as in :class:`.LesionCrop`.
        labels: (...), as in :class:`.LesionCrop`.
        level: (C,) mean intensity of its surroundings.
    """

    pixels: np.ndarray
    weight: np.ndarray
    labels: np.ndarray
    level: np.ndarray

    @cached_property
    def inside(self) -> np.ndarray:
        """(...) bool, its voxels."""
        return self.weight == LESION

    @cached_property
    def voxels(self) -> np.ndarray:
        """(N, dim) index of its voxels."""
        return np.argwhere(self.inside)


class LesionStore:
    """The lesions of some prepared cases.

    Args:
        files: one for each case.
        spacing_mm: of the network, one value for each of its axes.
        patch_size: likewise.

    Attributes:
        n_lesions: number of lesions that can be pasted.
        most_lesions: greatest number of lesions in one of the cases.
    """

    def __init__(self, files: Sequence[CaseCrops], spacing_mm: Sequence[float], patch_size: Sequence[int]):
        self.spacing_mm = np.asarray(spacing_mm, float)
        self.patch_size = np.asarray(patch_size)
        self.n_cases = len(files)
        # Configurations with other patches may share the files.
        largest = LARGEST_PART * self.patch_size
        self.places = [
            (file, int(number))
            for file in files
            for number in np.flatnonzero((file.size[:, -len(largest) :] <= largest).all(axis=1))
        ]
        self.n_lesions = len(self.places)
        self.most_lesions = max((file.n_lesions for file in files), default=0)
        if self.n_lesions:
            level = np.stack([file.level[number] for file, number in self.places])
            spread = np.stack([file.spread[number] for file, number in self.places])
            self.lowest_level, self.highest_level = np.quantile(level, USUAL, axis=0)
            self.highest_spread = np.quantile(spread, USUAL[1], axis=0)
            # Another lesion lies beyond n of them, on one side, with probability 1 / (n + 1). By this part of what
            # intensities differ around a lesion, the range is wider, so that a few lesions can be pasted at all.
            margin = self.highest_spread / (self.n_lesions + 1)
            self.lowest_level, self.highest_level = self.lowest_level - margin, self.highest_level + margin
            self.highest_spread = self.highest_spread + margin

    def describe(self) -> str:
        """How many lesions there are, for the log."""
        if self.n_lesions:
            return f"{self.n_lesions} lesions of {self.n_cases} cases can be pasted"
        return f"but none of the {self.n_cases} cases has a known lesion that touches no other: nothing is pasted"

    def draw(self, dim: int, rng: np.random.Generator) -> Lesion | None:
        """A random lesion, or with `dim` 2 a random slice of one, mirrored at random.

        Another training that starts may write the file of a case anew, for corrected maps: then what is in it now, or
        None where it has fewer lesions.
        """
        file, number = self.places[rng.integers(self.n_lesions)]
        crop = file.read(number)
        if crop is None:
            return None
        pixels, weight, labels = crop.image, crop.weight, crop.labels
        if dim == 2:
            x = any_row(np.argwhere(weight == LESION), rng)[0]
            pixels, weight, labels = pixels[:, x], weight[x], labels[x]
        flip = tuple(slice(None, None, side) for side in rng.choice([1, -1], dim))
        return Lesion(pixels[(slice(None), *flip)], weight[flip], labels[flip], crop.surroundings.mean(axis=1))

    def is_usual(self, values: np.ndarray) -> bool:
        """Whether intensities, (C, N), are like those around the lesions."""
        if values.shape[1] < FEWEST_VOXELS:
            return False
        level = values.mean(axis=1)
        within = (self.lowest_level <= level) & (level <= self.highest_level)
        return bool((within & (values.std(axis=1) <= self.highest_spread)).all())


def any_row(rows: np.ndarray | Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A random one of some rows."""
    return rows[int(rng.integers(len(rows)))]
