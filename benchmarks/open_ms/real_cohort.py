"""A semi-synthetic cohort on the brains of the open MS database, as a raw dataset of nnU-Net."""

import os
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_conflunet.simulation.cohort import (
    Case,
    CohortSettings,
    dataset_json,
    mean_lesions,
    prepare_folder,
    write_cases,
    write_patient,
)
from nnunetv2_conflunet.simulation.grid import Grid
from nnunetv2_conflunet.simulation.lesions import MAX_UNIT_VOLUME_MM3, LesionStatistics
from nnunetv2_conflunet.simulation.templates import load_templates
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path, write_json
from open_ms.real_anatomy import RealBrain, real_brain
from open_ms.real_data import FLAIR_PATIENTS, PATIENTS, SOURCE, OpenMS
from open_ms.real_patient import simulate_real_patient
from open_ms.real_shapes import real_components, shape_maker

# Every third patient lends shapes to the test cases, the others to the training cases.
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

    ``dataset.json`` is written last. Files depend on the data and the settings alone, byte by byte.

    Args:
        data: the open MS database.
        folder: the dataset.
        settings: what to simulate, at 1 mm.
        overwrite: replace the dataset that is there.
        processes: number of processes.

    Returns:
        Number of planned lesions for which no place was found, over all cases.

    Raises:
        InputError: the settings cannot be used, data are missing, or the folder is not empty and `overwrite` is False.
    """
    settings.check()
    if settings.spacing_mm != (1.0, 1.0, 1.0):
        raise InputError(f"Spacing {settings.spacing_mm} mm: the real images have 1 mm.")
    folder = Path(folder)
    grid = whole_voxels(settings.grid())
    prepare_folder(folder, overwrite)
    statistics = replace(settings.statistics, mean_lesions=mean_lesions(settings, grid))
    write_case = partial(_write_case, data.folder, folder, grid, statistics, settings.seed)
    total = write_cases(write_case, settings, processes)
    write_real_case(data, folder, grid)
    described = dataset_json(
        replace(settings, statistics=statistics),
        DESCRIPTION,
        SOURCE,
        licence="CC-BY",
        backgrounds=list(FLAIR_PATIENTS),
        shapes={split: list(patients) for split, patients in shape_patients().items()},
        real_case=REAL_CASE,
    )
    write_json(described, folder / "dataset.json")
    return total


def whole_voxels(grid: Grid) -> Grid:
    """A grid moved onto the voxels of the real images, whose centers have whole coordinates."""
    return Grid(grid.shape, grid.spacing_mm, tuple(float(round(o)) for o in grid.origin_mm))


def shape_patients() -> dict[str, tuple[str, ...]]:
    """Patients whose lesions lend their shapes to the cases of each split; no patient serves both."""
    test = PATIENTS[TEST_SHAPES - 1 :: TEST_SHAPES]
    return {"Tr": tuple(p for p in PATIENTS if p not in test), "Ts": test}


def occurrence_of(masks: list[np.ndarray]) -> np.ndarray:
    """How often patients have a lesion at a place, smoothed.

    Args:
        masks: (Z, Y, X) bool of each patient, on one 1 mm grid.

    Returns:
        (2, Z, Y, X) float32: share of the patients, for all lesions and for components up to 2 mL.
    """
    every, small = (np.zeros(masks[0].shape, np.float32) for _ in range(2))
    for mask in masks:
        every += mask
        labels = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
        is_small = np.bincount(labels.ravel()) <= MAX_UNIT_VOLUME_MM3
        is_small[0] = False
        small += is_small[labels]
    return np.stack([ndimage.gaussian_filter(sums / len(masks), OCCURRENCE_BLUR_MM) for sums in (every, small)])


def load_brain(data: OpenMS, patient: str) -> RealBrain:
    """The brain of a patient without lesions, and where the other patients have theirs; takes some seconds.

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
    box = tuple(slice(max(0, s.start - MARGIN), s.stop + MARGIN) for s in boxes[0])
    origin = tuple(o + s.start for o, s in zip(grid.origin_mm, box, strict=True))
    part = flair[box]
    cut = Grid(part.shape, grid.spacing_mm, origin)
    return real_brain(part, masks[patient][box], cut, occurrence[(slice(None), *box)], load_templates())


@dataclass(frozen=True)
class _Source:
    brains: tuple[RealBrain, ...]
    shapes: dict


@cache
def _source(folder: Path) -> _Source:
    """What all cases are made from, read once a process."""
    data = OpenMS.at(folder)
    brains = tuple(load_brain(data, patient) for patient in FLAIR_PATIENTS)
    shapes = {
        split: shape_maker([component for p in patients for component in real_components(data.mask(p)[0])])
        for split, patients in shape_patients().items()
    }
    return _Source(brains, shapes)


def _write_case(
    data_folder: Path, folder: Path, grid: Grid, statistics: LesionStatistics, seed: int, case: Case
) -> int:
    """Simulate and write one case; returns the number of lesions that found no place."""
    source = _source(data_folder)
    brain = source.brains[(case.number - 1) % len(source.brains)]
    own_statistics = statistics if case.has_lesions else None
    shapes = source.shapes[case.split]
    patient = simulate_real_patient(brain, shapes, grid, own_statistics, case.seed_sequence(seed))
    write_patient(folder, case, patient, grid)
    return patient.missed


def write_real_case(data: OpenMS, folder: Path, grid: Grid) -> None:
    """Write the FLAIR of :data:`REAL_CASE` as it is, and the mask, cropped to a grid.

    Args:
        data: the open MS database.
        folder: gets ``imagesReal/<patient>_0000.nii.gz`` (float32) and ``labelsReal/<patient>.nii.gz`` (uint8).
        grid: the crop, on the voxels of the images; beyond them it is 0.
    """
    (flair, own), (mask, _) = data.flair(REAL_CASE), data.mask(REAL_CASE)
    files = f"imagesReal/{REAL_CASE}_0000.nii.gz", f"labelsReal/{REAL_CASE}.nii.gz"
    for array, name in zip((flair, mask.astype(np.uint8)), files, strict=True):
        with atomic_path(folder / name, ".nii.gz") as path:
            sitk.WriteImage(grid.sitk_image(crop_to(array, own, grid)), str(path), True)


def crop_to(array: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """The part of an array on its `own` grid that another grid covers, both 1 mm; 0 where it has none."""
    first = [round(o - p) for o, p in zip(grid.origin_mm, own.origin_mm, strict=True)]
    result = np.zeros(grid.shape, array.dtype)
    ours = tuple(slice(max(0, -f), min(n, m - f)) for f, n, m in zip(first, grid.shape, own.shape, strict=True))
    theirs = tuple(slice(s.start + f, s.stop + f) for s, f in zip(ours, first, strict=True))
    result[ours] = array[theirs]
    return result
