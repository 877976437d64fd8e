"""A simulated cohort as a raw nnU-Net dataset."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.imageio.instance_maps import sitk_image, write_instances
from nnunetv2_conflunet.simulation.dataset_folder import SPLITS, case_name, prepare_folder
from nnunetv2_conflunet.simulation.image_grid import Grid, Triple, triple
from nnunetv2_conflunet.simulation.lesions import MEAN_LESIONS, LesionStatistics
from nnunetv2_conflunet.simulation.patient import Patient, lesion_share_of, simulate_patient
from nnunetv2_conflunet.simulation.templates import load_templates
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path, write_json
from nnunetv2_conflunet.utilities.options import option
from nnunetv2_conflunet.utilities.parallel import run_cases

AXES = "Z", "Y", "X"
ENDING = ".nii.gz"
# Margin around the brain with `--whole_brain`, for patients larger than the template.
MARGIN_MM = 8.0


@dataclass(frozen=True)
class CohortSettings:
    """Composition of a cohort. Tuples are in nnU-Net's axis order (z, y, x).

    Attributes:
        training_cases: number of cases in imagesTr.
        test_cases: number of cases in imagesTs.
        spacing_mm: voxel size.
        crop_mm: size of the box around the ventricles; None for the whole brain.
        lesions: mean number of lesions in the volume of a patient who has any; None: 58 per whole brain, in a crop the
            fraction expected in its tissue.
        lesion_free_share: fraction of patients without lesions, spread evenly over the case numbers.
        statistics: other properties of the lesions; its mean number is replaced by the one above.
        seed: a case depends only on the seed, its split and its number.
    """

    training_cases: int = option(20, "cases in imagesTr", metavar="N")
    test_cases: int = option(6, "cases in imagesTs", metavar="N")
    spacing_mm: Triple = option(
        (1.0, 1.0, 1.0), "voxel size in mm; 3 1 1 for 3 mm slices", flag="--spacing", metavar=AXES
    )
    crop_mm: Triple | None = option(
        (96.0, 112.0, 96.0), "size in mm of the box around the ventricles", flag="--crop", metavar=AXES
    )
    lesions: float | None = option(
        None, f"mean number of lesions in patients with any (default: {MEAN_LESIONS:g} per brain, fewer in a crop)"
    )
    lesion_free_share: float = option(0.0, "fraction of patients without lesions", metavar="SHARE")
    statistics: LesionStatistics = field(default_factory=LesionStatistics)
    seed: int = option(0, "seed of the random numbers; the same seed gives the same bytes")

    def check(self) -> None:
        """Raise an :class:`InputError` for the first invalid setting."""
        shares = {
            "confluent": self.statistics.confluent_share,
            "near-miss": self.statistics.near_miss_share,
            "lesion-free": self.lesion_free_share,
        }
        spacing, crop, lesions, dispersion = self.spacing_mm, self.crop_mm, self.lesions, self.statistics.dispersion
        is_wrong = {
            "The numbers of cases must not be negative.": min(self.training_cases, self.test_cases) < 0,
            "There must be at least one case.": self.training_cases + self.test_cases < 1,
            f"Spacing {spacing} mm: give sizes between 0.3 and 6 mm.": not all(0.3 <= mm <= 6 for mm in spacing),
            f"Crop {crop} mm: give sizes between 32 and 256 mm.": not all(32 <= mm <= 256 for mm in crop or ()),
            f"Mean number of lesions {lesions}: give a number between 1 and 1000.": (
                lesions is not None and not 1 <= lesions <= 1000
            ),
            f"Dispersion {dispersion}: give a number between 0.01 and 1000000.": not 0.01 <= dispersion <= 1e6,
            **{
                f"The {name} share {share} must lie between 0 and 1.": not 0 <= share <= 1
                for name, share in shares.items()
            },
            f"The seed {self.seed} must not be negative.": self.seed < 0,
        }
        for message, applies in is_wrong.items():
            if applies:
                raise InputError(message)

    def grid(self) -> Grid:
        """The grid that all cases share."""
        head = load_templates()
        if self.crop_mm is not None:
            return Grid.around(head.ventricle_center_mm, self.crop_mm, self.spacing_mm)
        (brain,) = ndimage.find_objects((head.brain > 0).view(np.uint8))
        ends = zip(head.grid.axes_mm(), brain, strict=True)
        low, high = np.transpose([(axis[side.start], axis[side.stop - 1]) for axis, side in ends])
        return Grid.around(triple((low + high) / 2), triple(high - low + 2 * MARGIN_MM), self.spacing_mm)


@dataclass(frozen=True)
class Case:
    """One case of a cohort.

    Attributes:
        split: ``Tr`` or ``Ts``.
        number: from 1 within the split.
        has_lesions: whether it has any.
    """

    split: str
    number: int
    has_lesions: bool

    @property
    def name(self) -> str:
        """nnU-Net's case identifier."""
        return case_name(self.split, self.number)

    def seed_sequence(self, seed: int) -> np.random.SeedSequence:
        """The case's own source of random numbers in a cohort with this seed."""
        return np.random.SeedSequence(seed, spawn_key=(SPLITS.index(self.split), self.number))


def cases_of(settings: CohortSettings) -> Iterator[Case]:
    """The cases in order, training cases first.

    Example:
        >>> [case.name for case in cases_of(CohortSettings(training_cases=2, test_cases=1))]
        ['simTr_0001', 'simTr_0002', 'simTs_0001']
    """
    for split, count in zip(SPLITS, (settings.training_cases, settings.test_cases), strict=True):
        for index in range(count):
            # Counted so that the first k cases, for any k, have their fraction of lesion-free ones.
            before, after = (int(settings.lesion_free_share * number + 1e-9) for number in (index, index + 1))
            yield Case(split, index + 1, before == after)


class Source:
    """The source of a cohort's patients: here the MNI152 template, in subclasses other brains."""

    def described(self) -> dict[str, Any]:
        """Entries of ``dataset.json``."""
        return {
            "description": "Simulated FLAIR of patients with multiple sclerosis: MNI152 anatomy, synthetic lesions",
            "reference": "ICBM 152 nonlinear atlas 2009a, Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033",
        }

    def grid(self, settings: CohortSettings) -> Grid:
        """The grid that all cases share."""
        return settings.grid()

    def patient(self, case: Case, grid: Grid, statistics: LesionStatistics | None, seed: int) -> Patient:
        """The patient of a case in a cohort with this seed; without lesions if `statistics` is None."""
        return simulate_patient(grid, statistics, case.seed_sequence(seed))

    def write_further(self, folder: Path, grid: Grid) -> None:
        """Write additional files of the dataset."""


def write_cohort(
    folder: str | os.PathLike,
    settings: CohortSettings,
    source: Source | None = None,
    *,
    overwrite: bool = False,
    processes: int = 1,
) -> int:
    """Simulate a cohort and write it as an nnU-Net raw dataset.

    ``dataset.json`` is written last: a folder without it is not a dataset. Files depend only on the
    settings and the source, byte by byte, and not on the number of processes.

    Args:
        folder: the dataset, ``.../DatasetNNN_Name``.
        settings: what to simulate.
        source: of the patients. None: the MNI152 template.
        overwrite: replace an existing cohort.
        processes: number of processes.

    Returns:
        The number of planned lesions that could not be placed, over all cases.

    Raises:
        InputError: settings are invalid, the anatomy is not installed, or the folder is not empty and `overwrite` is
            False, or it holds files that are not of a simulated cohort.
    """
    settings.check()
    folder, source = Path(folder), source or Source()
    grid = source.grid(settings)
    prepare_folder(folder, overwrite)
    settings = replace(settings, statistics=replace(settings.statistics, mean_lesions=mean_lesions(settings, grid)))
    cases = list(cases_of(settings))
    write_case = partial(_write_case, folder, grid, settings, source)
    total = sum(run_cases(write_case, {case.name: (case,) for case in cases}, processes, "Simulating"))
    source.write_further(folder, grid)
    content = {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": settings.training_cases,
        "file_ending": ENDING,
        **source.described(),
        "simulation": {"version": __version__, **asdict(settings)},
    }
    write_json(content, folder / "dataset.json")
    return total


def mean_lesions(settings: CohortSettings, grid: Grid) -> float:
    """Mean number of lesions in the volume of a patient who has any."""
    if settings.lesions is not None:
        return settings.lesions
    return max(1.0, MEAN_LESIONS * lesion_share_of(grid))


def _write_case(folder: Path, grid: Grid, settings: CohortSettings, source: Source, case: Case) -> int:
    """Simulate and write image, label and instances of a case; returns the number of lesions not placed."""
    patient = source.patient(case, grid, settings.statistics if case.has_lesions else None, settings.seed)
    write_image(patient.image, grid, folder / f"images{case.split}" / f"{case.name}_0000{ENDING}")
    write_image((patient.instances > 0).astype(np.uint8), grid, folder / f"labels{case.split}" / f"{case.name}{ENDING}")
    path = folder / f"instances{case.split}" / f"{case.name}{ENDING}"
    write_instances(patient.instances, path, SimpleITKIO(), grid.sitk_properties(), ENDING)
    return patient.missed


def write_image(array: np.ndarray, grid: Grid, path: Path) -> None:
    """Write an array (z, y, x) on a grid as a compressed NIfTI file, completely or not at all."""
    with atomic_path(path, ENDING) as temporary:
        sitk.WriteImage(sitk_image(array, grid.sitk_properties()["sitk_stuff"]), str(temporary), True)
