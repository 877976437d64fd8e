"""A semi-synthetic cohort on the brains of the open MS database, as a raw dataset of nnU-Net."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.cohort import Case, CohortSettings, Source, write_cohort, write_image
from nnunetv2_conflunet.simulation.image_grid import Grid, enlarged, triple
from nnunetv2_conflunet.simulation.lesions import MAX_UNIT_VOLUME_MM3, LesionStatistics, Shape
from nnunetv2_conflunet.simulation.patient import Patient
from nnunetv2_conflunet.simulation.templates import load_templates
from nnunetv2_conflunet.utilities.errors import InputError
from open_ms.anatomy import RealBrain, real_brain
from open_ms.data import ENDING, FLAIR_PATIENTS, PATIENTS, SOURCE, OpenMS
from open_ms.patient import simulate_real_patient
from open_ms.shapes import real_components, shape_maker

# Every third patient provides shapes for the test cases, the others for the training cases.
TEST_SHAPES = 3
# The patient whose lesions are most confluent.
REAL_CASE = "patient19"
OCCURRENCE_BLUR_MM = 4.0
MARGIN = 4
DESCRIPTION = (
    "Semi-synthetic: lesions of real shape painted into deformed real FLAIR of patients with multiple sclerosis, whose "
    "own lesions were filled"
)


def write_real_cohort(
    data: OpenMS, folder: str | os.PathLike, settings: CohortSettings, *, overwrite: bool = False, processes: int = 1
) -> int:
    """Write a semi-synthetic cohort as an nnU-Net raw dataset, and one real case in ``imagesReal`` and
    ``labelsReal``.

    See :func:`nnunetv2_conflunet.simulation.cohort.write_cohort`; the settings ask for 1 mm.

    Raises:
        InputError: the settings cannot be used, data are missing, or the folder is not empty and `overwrite` is False.
    """
    return write_cohort(folder, settings, OpenMSSource(data), overwrite=overwrite, processes=processes)


@dataclass(frozen=True)
class OpenMSSource(Source):
    """Patients derived from the real ones.

    Attributes:
        data: the open MS database.
    """

    data: OpenMS

    def described(self) -> dict:
        """Entries of ``dataset.json``."""
        return {
            "description": DESCRIPTION,
            "reference": SOURCE,
            "licence": "CC-BY",
            "backgrounds": list(FLAIR_PATIENTS),
            "shapes": {split: list(patients) for split, patients in shape_patients().items()},
            "real_case": REAL_CASE,
        }

    def grid(self, settings: CohortSettings) -> Grid:
        """The grid of the settings, on the voxels of the real images."""
        if settings.spacing_mm != (1.0, 1.0, 1.0):
            raise InputError(f"Spacing {settings.spacing_mm} mm: the real images have 1 mm.")
        return whole_voxels(settings.grid())

    def patient(self, case: Case, grid: Grid, statistics: LesionStatistics | None, seed: int) -> Patient:
        """A patient on one of the real brains, in turn."""
        brain = _brain(self.data, FLAIR_PATIENTS[(case.number - 1) % len(FLAIR_PATIENTS)])
        make_shape = _make_shape(self.data, case.split)
        return simulate_real_patient(brain, make_shape, grid, statistics, case.seed_sequence(seed))

    def write_further(self, folder: Path, grid: Grid) -> None:
        """Write the original FLAIR and the mask of :data:`REAL_CASE`, cropped to the grid and padded with 0.

        The files are ``imagesReal/<patient>_0000.nii.gz`` (float32) and ``labelsReal/<patient>.nii.gz`` (uint8).
        """
        (flair, own), (mask, _) = self.data.flair(REAL_CASE), self.data.mask(REAL_CASE)
        write_image(crop_to(flair, own, grid), grid, folder / "imagesReal" / f"{REAL_CASE}_0000{ENDING}")
        write_image(crop_to(mask.astype(np.uint8), own, grid), grid, folder / "labelsReal" / f"{REAL_CASE}{ENDING}")


def whole_voxels(grid: Grid) -> Grid:
    """A grid moved onto the voxels of the real images, whose centers have whole coordinates."""
    return Grid(grid.shape, grid.spacing_mm, triple(round(o) for o in grid.origin_mm))


def shape_patients() -> dict[str, tuple[str, ...]]:
    """Patients whose lesion shapes are used for each split; no patient is in both."""
    test = PATIENTS[TEST_SHAPES - 1 :: TEST_SHAPES]
    return {"Tr": tuple(patient for patient in PATIENTS if patient not in test), "Ts": test}


def occurrence_of(masks: list[np.ndarray]) -> np.ndarray:
    """Smoothed frequency of lesions at each position.

    Args:
        masks: (Z, Y, X) bool of each patient, on one 1 mm grid.

    Returns:
        (2, Z, Y, X) float32: fraction of patients, for all lesions and for components up to 2 mL.
    """
    every, small = (np.zeros(masks[0].shape, np.float32) for _ in range(2))
    for mask in masks:
        every += mask
        labels = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
        is_small = np.bincount(labels.ravel()) <= MAX_UNIT_VOLUME_MM3
        is_small[0] = False
        small += is_small[labels]
    return np.stack([ndimage.gaussian_filter(sums / len(masks), OCCURRENCE_BLUR_MM) for sums in (every, small)])


@cache
def _brain(data: OpenMS, patient: str) -> RealBrain:
    """A patient's brain without lesions, and where the others have theirs; takes some seconds, once per process.

    Raises:
        InputError: a file is missing, cannot be read, or has another grid than the others.
    """
    flair, grid = data.flair(patient)
    masks = {}
    for other in PATIENTS:
        masks[other], other_grid = data.mask(other)
        if other_grid != grid:
            raise InputError(f"{data.path('gold', other)} has another grid than {data.path('flair', patient)}.")
    occurrence = occurrence_of([mask for other, mask in masks.items() if other != patient])
    boxes = ndimage.find_objects((flair != 0).astype(np.uint8))
    if not boxes:
        raise InputError(f"{data.path('flair', patient)} is empty.")
    # The brain fills half of the image.
    box = enlarged(boxes[0], MARGIN)
    part = flair[box]
    origin = triple(o + side.start for o, side in zip(grid.origin_mm, box, strict=True))
    cut = Grid(part.shape, grid.spacing_mm, origin)
    return real_brain(part, masks[patient][box], cut, occurrence[(slice(None), *box)], load_templates())


@cache
def _make_shape(data: OpenMS, split: str) -> Callable[..., Shape]:
    """The shapes for the lesions of a split, read once per process."""
    masks = [data.mask(patient)[0] for patient in shape_patients()[split]]
    return shape_maker([component for mask in masks for component in real_components(mask)])


def crop_to(array: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """An array on its `own` grid, cropped to another grid and padded with 0; both are 1 mm."""
    first = [round(o - p) for o, p in zip(grid.origin_mm, own.origin_mm, strict=True)]
    result = np.zeros(grid.shape, array.dtype)
    ours = tuple(slice(max(0, -f), min(n, m - f)) for f, n, m in zip(first, grid.shape, own.shape, strict=True))
    theirs = tuple(slice(s.start + f, s.stop + f) for s, f in zip(ours, first, strict=True))
    result[ours] = array[theirs]
    return result
