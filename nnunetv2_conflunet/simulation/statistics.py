"""Lesion statistics of a cohort, next to those of real patients."""

import os
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from scipy import ndimage
from tqdm import tqdm

from nnunetv2_conflunet.imageio import CaseFolder, read_instances
from nnunetv2_conflunet.simulation.cohort import ENDING
from nnunetv2_conflunet.simulation.dataset_folder import SPLITS
from nnunetv2_conflunet.simulation.image_grid import enlarged
from nnunetv2_conflunet.utilities.errors import InputError

QUANTILES = 5, 25, 50, 75, 95
LARGE_MM3 = 2000.0
# Consensus masks of Lesjak et al. 2017 (doi:10.1007/s12021-017-9348-7) in MNI space: 23 patients, 1335 components
# (26-connectivity) of at least 14 mm3 and 3 mm along each axis. Confluent lesions are not separated. Median and range
# of count and load are those of the whole database; the other values come from `measure_case` on the masks.
PATIENTS = {
    "Lesions per patient, median (quartiles)": "40 (15-77)",
    "Lesions per patient, mean": "58.0",
    "Load per patient in mL, median (range)": "14.0 (0.3-53.0)",
    "Component volume in mm3, quantiles 5 25 50 75 95 %": "16 26 43 90 472",
    "Components above 2 mL, %": "2.0",
    "Near-misses, %": "31.4",
}


@dataclass(frozen=True)
class CaseLesions:
    """Lesions of one case.

    Attributes:
        volumes_mm3: volume of each instance.
        component_volumes_mm3: volume of each connected component (26-connectivity) of their union.
        confluent: number of instances that share a component with another instance.
        near_misses: number of instances separated from another component by one background voxel.
        smallest_extent_mm: the smallest extent along any axis over all instances; NaN without instances.
    """

    volumes_mm3: np.ndarray
    component_volumes_mm3: np.ndarray
    confluent: int
    near_misses: int
    smallest_extent_mm: float


def measure_case(instances: np.ndarray, spacing_mm: tuple[float, ...]) -> CaseLesions:
    """Measure one instance map.

    Args:
        instances: (Z, Y, X) integers, 0 is background.
        spacing_mm: voxel size along each axis.

    Returns:
        The statistics; empty arrays and zeros without instances.

    Example:
        >>> measure_case(np.pad(np.ones((3, 3, 3), np.int32), 1), (2, 1, 1)).volumes_mm3
        array([54.])
    """
    voxel_mm3 = float(np.prod(spacing_mm))
    foreground = instances > 0
    # Without gaps, so that the arrays below have one entry an instance.
    instances = np.searchsorted(np.append(0, np.unique(instances[foreground])), instances)
    components = cc3d.connected_components(foreground.astype(np.uint8), connectivity=26)
    pairs = np.unique(np.stack([components[foreground], instances[foreground]]).astype(np.int64), axis=1)
    units = np.bincount(pairs[0], minlength=1)
    boxes = ndimage.find_objects(instances)
    extents_mm = [(side.stop - side.start) * mm for box in boxes for side, mm in zip(box, spacing_mm, strict=True)]
    return CaseLesions(
        volumes_mm3=np.bincount(instances[foreground], minlength=1)[1:] * voxel_mm3,
        component_volumes_mm3=np.bincount(components[foreground], minlength=1)[1:] * voxel_mm3,
        confluent=int(units[units > 1].sum()),
        near_misses=sum(_is_near_miss(instances, components, box, label) for label, box in enumerate(boxes, start=1)),
        smallest_extent_mm=min(extents_mm, default=float("nan")),
    )


def _is_near_miss(instances: np.ndarray, components: np.ndarray, box: tuple[slice, ...], label: int) -> bool:
    """Whether another component is two voxels away from an instance, with one voxel in between."""
    box = enlarged(box, 2)
    own = instances[box] == label
    others = (components[box] > 0) & (components[box] != components[box][own][0])
    return bool((ndimage.binary_dilation(own, np.ones((5, 5, 5))) & others).any())


def measure_dataset(folder: str | os.PathLike) -> list[CaseLesions]:
    """Measure all instance maps in ``instancesTr`` and ``instancesTs`` of a simulated dataset.

    Raises:
        InputError: there are none, or one would be skipped or cannot be read.
    """
    folders = (Path(folder, f"instances{split}") for split in SPLITS)
    splits = [CaseFolder.of(split, ENDING) for split in folders if split.is_dir()]
    for split in splits:
        split.refuse_lost()
    paths = [path for split in splits for path in split.files.values()]
    if not paths:
        raise InputError(f"{folder} holds no instance maps (instancesTr/*{ENDING}).")
    cases = []
    for path in tqdm(paths, desc="Measuring", unit="case"):
        instances, properties = read_instances(path, SimpleITKIO())
        cases.append(measure_case(instances, properties["spacing"]))
    return cases


def statistics_table(cases: list[CaseLesions]) -> str:
    """A Markdown table of a cohort's statistics next to those of real patients.

    Patients without lesions are counted only in the first row.

    Example:
        >>> print(statistics_table([measure_case(np.zeros((4, 4, 4), np.int32), (1, 1, 1))]))
        | | this cohort | patients |
        | --- | --- | --- |
        | Patients (without lesions) | 1 (1) | - |
    """
    affected = [case for case in cases if len(case.volumes_mm3)]
    counts = np.array([len(case.volumes_mm3) for case in affected])
    loads_ml = np.array([case.volumes_mm3.sum() / 1000 for case in affected])
    units = np.concatenate([case.volumes_mm3 for case in affected] or [np.zeros(0)])
    components = np.concatenate([case.component_volumes_mm3 for case in affected] or [np.zeros(0)])
    rows = {"Patients (without lesions)": f"{len(cases)} ({len(cases) - len(affected)})"}
    if affected:
        low, middle, high = np.percentile(counts, (25, 50, 75))
        total = counts.sum()
        rows |= {
            "Lesions per patient, median (quartiles)": f"{middle:.0f} ({low:.0f}-{high:.0f})",
            "Lesions per patient, mean": f"{counts.mean():.1f}",
            "Load per patient in mL, median (range)": f"{np.median(loads_ml):.1f} "
            f"({loads_ml.min():.1f}-{loads_ml.max():.1f})",
            "Lesion volume in mm3, quantiles 5 25 50 75 95 %": _quantiles(units),
            "Component volume in mm3, quantiles 5 25 50 75 95 %": _quantiles(components),
            "Lesions above 2 mL, %": f"{100 * np.mean(units > LARGE_MM3):.1f}",
            "Components above 2 mL, %": f"{100 * np.mean(components > LARGE_MM3):.1f}",
            "Confluent lesions, %": f"{100 * sum(case.confluent for case in affected) / total:.1f}",
            "Near-misses, %": f"{100 * sum(case.near_misses for case in affected) / total:.1f}",
            "Smallest lesion in mm3": f"{units.min():.1f}",
            "Smallest extent in mm": f"{min(case.smallest_extent_mm for case in affected):.1f}",
        }
    lines = ["| | this cohort | patients |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {name} | {value} | {PATIENTS.get(name, '-')} |" for name, value in rows.items()])


def _quantiles(values: np.ndarray) -> str:
    return " ".join(f"{value:.0f}" for value in np.percentile(values, QUANTILES))
