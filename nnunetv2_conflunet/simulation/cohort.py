"""A simulated cohort as a raw dataset of nnU-Net."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from joblib import Parallel, delayed
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from tqdm import tqdm

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.imageio import write_instances
from nnunetv2_conflunet.simulation.grid import Grid
from nnunetv2_conflunet.simulation.lesions import MEAN_LESIONS, LesionStatistics
from nnunetv2_conflunet.simulation.patient import Patient, lesion_share_of, simulate_patient
from nnunetv2_conflunet.simulation.templates import load_templates
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path, write_json
from nnunetv2_conflunet.utilities.options import option

SPLITS = "Tr", "Ts"
AXES = "Z", "Y", "X"
FOLDERS = tuple(kind + split for split in SPLITS for kind in ("images", "labels", "instances"))
# Around the brain in `--whole_brain`, for patients larger than the template.
MARGIN_MM = 8.0
DESCRIPTION = "Simulated FLAIR of patients with multiple sclerosis: MNI152 anatomy, synthetic lesions"
REFERENCE = "ICBM 152 nonlinear atlas 2009a, Fonov et al. 2011, doi:10.1016/j.neuroimage.2010.07.033"


@dataclass(frozen=True)
class CohortSettings:
    """What a cohort consists of. Tuples are in nnU-Net's axis order (z, y, x).

    Attributes:
        training_cases: number of cases in imagesTr.
        test_cases: number of cases in imagesTs.
        spacing_mm: voxel size.
        crop_mm: size of the box around the ventricles; None for the whole brain.
        lesions: mean number of lesions in the volume of a patient who has any; None: 58 a whole brain, in a crop the
            share of them that its tissue would have.
        lesion_free_share: share of the patients without lesions, spread evenly over the case numbers.
        statistics: the other properties of the lesions; its mean number is replaced by the one above.
        seed: a case depends on the seed, its split and its number only.
    """

    training_cases: int = option(20, "cases in imagesTr", metavar="N")
    test_cases: int = option(6, "cases in imagesTs", metavar="N")
    spacing_mm: tuple[float, float, float] = option(
        (1.0, 1.0, 1.0), "voxel size in mm; 3 1 1 for slices of 3 mm", flag="--spacing", metavar=AXES
    )
    crop_mm: tuple[float, float, float] | None = option(
        (96.0, 112.0, 96.0), "size in mm of the box around the ventricles", flag="--crop", metavar=AXES
    )
    lesions: float | None = option(
        None, f"mean number of lesions in patients with any (default: {MEAN_LESIONS:g} a brain, in a crop its share)"
    )
    lesion_free_share: float = option(0.0, "share of the patients without lesions", metavar="SHARE")
    statistics: LesionStatistics = field(default_factory=LesionStatistics)
    seed: int = option(0, "seed of the random numbers; the same seed gives the same bytes")

    def check(self) -> None:
        """Raise an :class:`InputError` that names the first setting that cannot be used."""
        problems = [
            (self.training_cases < 0 or self.test_cases < 0, "The numbers of cases must not be negative."),
            (self.training_cases + self.test_cases < 1, "There must be at least one case."),
            (
                not all(0.3 <= d <= 6 for d in self.spacing_mm),
                f"Spacing {self.spacing_mm} mm: give sizes between 0.3 and 6 mm.",
            ),
            (
                self.crop_mm is not None and not all(32 <= s <= 256 for s in self.crop_mm),
                f"Crop {self.crop_mm} mm: give sizes between 32 and 256 mm.",
            ),
            (
                self.lesions is not None and not 1 <= self.lesions <= 1000,
                f"Mean number of lesions {self.lesions}: give a number between 1 and 1000.",
            ),
            (not self.statistics.dispersion > 0, "The dispersion must be above 0."),
            *(
                (not 0 <= share <= 1, f"The {name} share {share} must lie between 0 and 1.")
                for name, share in (
                    ("confluent", self.statistics.confluent_share),
                    ("near-miss", self.statistics.near_miss_share),
                    ("lesion-free", self.lesion_free_share),
                )
            ),
            (self.seed < 0, f"The seed {self.seed} must not be negative."),
        ]
        for is_wrong, message in problems:
            if is_wrong:
                raise InputError(message)

    def grid(self) -> Grid:
        """The grid that all cases share."""
        templates = load_templates()
        if self.crop_mm is not None:
            return Grid.around(templates.ventricle_center_mm, self.crop_mm, self.spacing_mm)
        low, high = np.array(templates.brain_mm)
        return Grid.around(tuple((low + high) / 2), tuple(high - low + 2 * MARGIN_MM), self.spacing_mm)


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
        return f"sim{self.split}_{self.number:04d}"

    def seed_sequence(self, seed: int) -> np.random.SeedSequence:
        """The case's own source of random numbers within a cohort of a seed."""
        return np.random.SeedSequence(seed, spawn_key=(SPLITS.index(self.split), self.number))


def cases_of(settings: CohortSettings) -> Iterator[Case]:
    """The cases in order, training cases first."""
    for split, count in zip(SPLITS, (settings.training_cases, settings.test_cases), strict=True):
        for index in range(count):
            # Counted so that every first k cases hold their share of lesion-free ones.
            before, after = (int(settings.lesion_free_share * i + 1e-9) for i in (index, index + 1))
            yield Case(split, index + 1, before == after)


def write_cohort(
    folder: str | os.PathLike, settings: CohortSettings, *, overwrite: bool = False, processes: int = 1
) -> int:
    """Simulate a cohort and write it as an nnU-Net raw dataset.

    ``dataset.json`` is written last: a folder without it is not a dataset. Files depend on the settings alone, byte by
    byte, whatever the number of processes.

    Args:
        folder: the dataset, ``.../DatasetNNN_Name``.
        settings: what to simulate.
        overwrite: replace the dataset that is there.
        processes: number of processes.

    Returns:
        Number of planned lesions for which no place was found, over all cases.

    Raises:
        InputError: the settings cannot be used, the anatomy is not installed, or the folder is not empty and
            `overwrite` is False.
    """
    settings.check()
    grid = settings.grid()
    folder = Path(folder)
    prepare_folder(folder, overwrite)
    statistics = replace(settings.statistics, mean_lesions=mean_lesions(settings, grid))
    write_case = partial(_write_case, folder, grid, statistics, settings.seed)
    total = write_cases(write_case, settings, processes)
    described = dataset_json(replace(settings, statistics=statistics), DESCRIPTION, REFERENCE)
    write_json(described, folder / "dataset.json")
    return total


def mean_lesions(settings: CohortSettings, grid: Grid) -> float:
    """Mean number of lesions in the volume of a patient who has any."""
    if settings.lesions is not None:
        return settings.lesions
    return max(1.0, MEAN_LESIONS * lesion_share_of(grid))


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Make the empty folders of a dataset.

    Raises:
        InputError: it is a file, or not empty and `overwrite` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(f"{folder} is not empty; choose another dataset or give --overwrite.")
        # First what makes the folder a dataset, then only what a cohort consists of.
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in FOLDERS:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def write_cases(write_case: Callable[[Case], int], settings: CohortSettings, processes: int) -> int:
    """Write all cases of a cohort.

    Args:
        write_case: simulates and writes one; returns the number of its lesions that found no place.
        settings: what to simulate.
        processes: number of processes.

    Returns:
        The sum over the cases.
    """
    cases = list(cases_of(settings))
    missed = Parallel(n_jobs=min(processes, len(cases)), return_as="generator")(delayed(write_case)(i) for i in cases)
    return sum(tqdm(missed, total=len(cases), desc="Simulating", unit="case"))


def _write_case(folder: Path, grid: Grid, statistics: LesionStatistics, seed: int, case: Case) -> int:
    """Simulate and write one case; returns the number of lesions that found no place."""
    patient = simulate_patient(grid, statistics if case.has_lesions else None, case.seed_sequence(seed))
    write_patient(folder, case, patient, grid)
    return patient.missed


def write_patient(folder: Path, case: Case, patient: Patient, grid: Grid) -> None:
    """Write image, semantic labels and instances of one case into a dataset."""
    writer, properties = SimpleITKIO(), grid.sitk_properties()
    with atomic_path(folder / f"images{case.split}" / f"{case.name}_0000.nii.gz", ".nii.gz") as path:
        sitk.WriteImage(grid.sitk_image(patient.image), str(path), True)
    with atomic_path(folder / f"labels{case.split}" / f"{case.name}.nii.gz", ".nii.gz") as path:
        sitk.WriteImage(grid.sitk_image((patient.instances > 0).astype(np.uint8)), str(path), True)
    path = folder / f"instances{case.split}" / f"{case.name}.nii.gz"
    write_instances(patient.instances, path, writer, properties, ".nii.gz")


def dataset_json(settings: CohortSettings, description: str, reference: str, **further: object) -> dict:
    """nnU-Net's ``dataset.json`` of a cohort, with how it was made.

    Args:
        settings: what was simulated.
        description: of the cohort.
        reference: to what it was made from.
        further: entries that nnU-Net does not know.
    """
    return {
        "channel_names": {"0": "FLAIR"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": settings.training_cases,
        "file_ending": ".nii.gz",
        "description": description,
        "reference": reference,
        **further,
        "simulation": {"version": __version__, **asdict(settings)},
    }
