"""Lesions with their surroundings, cut out of preprocessed cases, to be pasted into training patches.

Only lesions whose extent is known are taken: those with a center (:mod:`.instance_centers`) that touch neither another
lesion nor the border of the image.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects

from nnunetv2_conflunet.preprocessing.instance_centers import centers_file
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances
from nnunetv2_conflunet.utilities.errors import InputError, join_faults, list_some
from nnunetv2_conflunet.utilities.files import atomic_path
from nnunetv2_conflunet.utilities.parallel import try_cases
from nnunetv2_conflunet.utilities.whole_files import is_whole

# A folder of its own, so that no file can be taken for the map of a case.
FOLDER = "lesions"
# Increased whenever a change of the code changes the content of the files.
FORMAT = 2
MADE_FROM = "made_from"
# Width of the surroundings, and of the seam in which lesion and surroundings are blended when it is pasted.
MARGIN_MM, SEAM_MM = 4.0, 2.0
# Spacing of axes that the network does not have: no lesion is nearer across them than along the others.
FAR_MM = 1e6
# Values of the weight of a voxel: lesion, surroundings outside the seam, and what is neither (other lesions, unlabeled
# voxels, outside the image or its nonzero region).
LESION, SURROUNDINGS, NEITHER = 1.0, 0.0, -1.0


@dataclass(frozen=True, eq=False)
class LesionCrop:
    """One lesion with its surroundings.

    Attributes:
        image: (C, X, Y, Z) float32, preprocessed intensities.
        weight: (X, Y, Z) float32: ``LESION``, ``SURROUNDINGS``, ``NEITHER``, or in the seam a value between 0 and 1
            that falls with the distance from the lesion.
        labels: (X, Y, Z) int, its labels in the semantic segmentation, 0 outside the lesion.
    """

    image: np.ndarray
    weight: np.ndarray
    labels: np.ndarray

    @property
    def surroundings(self) -> np.ndarray:
        """(C, N) intensities of its surroundings."""
        return self.image[:, self.weight == SURROUNDINGS]


class CaseCrops:
    """The lesions in the file of one case; their voxels are read one lesion at a time.

    Attributes:
        size: (N, 3) number of voxels of each lesion along each axis.
        level: (N, C) mean intensity of its surroundings.
        spread: (N, C) their standard deviation.
        n_lesions: number of all lesions of the case, also of those that are not in the file.
    """

    def __init__(self, file: Path):
        self.file = file
        with np.load(file) as arrays:
            self.size, self.level, self.spread = arrays["size"], arrays["level"], arrays["spread"]
            self.n_lesions = int(arrays["n_lesions"])

    def read(self, number: int) -> LesionCrop | None:
        """Read the lesion that has row `number` in the tables of the file now; None if it no longer has one there."""
        with np.load(self.file) as arrays:
            if str(number) not in arrays:
                return None
            stacked, of_voxels = arrays[str(number)], arrays[f"labels_{number}"]
        labels = np.zeros(stacked.shape[1:], int)
        labels[stacked[-1] == LESION] = of_voxels
        return LesionCrop(stacked[:-1], stacked[-1], labels)


def crops_file(folder: Path, case: str) -> Path:
    """The file with the lesions of a case, in the folder of instance maps."""
    return folder / FOLDER / f"{case}.npz"


def prepare_lesion_crops(prepared: PreprocessedInstances, num_processes: int) -> list[str]:
    """Cut out the lesions of every prepared case whose file is missing or stale.

    The instance maps are current (:meth:`.PreprocessedInstances.prepare`). Any number of processes may call this at
    once; the first does the work. If nothing is to be done, nothing is locked or written.

    Args:
        prepared: the instance maps of a configuration.
        num_processes: worker processes.

    Returns:
        The cases whose files were written.

    Raises:
        InputError: files must be written, and the folder is read-only; or maps were copied without their centers, from
            which it is known which lesions are whole.
    """
    cases = prepared.cases()
    if without := [case for case in cases if not centers_file(prepared.folder, case).is_file()]:
        raise InputError(
            f"{len(without)} of {len(cases)} cases have no file in {centers_file(prepared.folder, '').parent} "
            f"({list_some(without)}), and without centers no lesions can be pasted. Copy that folder from the machine "
            "that prepared it, or put the raw dataset in nnUNet_raw."
        )
    stale = [case for case in cases if not _is_current(prepared, case)]
    if not stale:
        return []
    try:
        with prepared.lock():
            calls = {case: (prepared, case) for case in stale if not _is_current(prepared, case)}
            _, faults = try_cases(_write_crops, calls, num_processes, "Cutting out lesions")
    except InputError as error:
        raise InputError(f"{error} With --lesion_crops it also cuts out the lesions to paste.") from error
    if faults:
        raise InputError(join_faults(faults))
    return list(calls)


def crops_of_case(
    image: np.ndarray,
    labels: np.ndarray,
    instances: np.ndarray,
    ids: np.ndarray,
    spacing_mm: tuple[float, ...],
) -> Iterator[LesionCrop]:
    """Cut out the lesions with the given ids that touch neither another lesion nor the border of the image.

    Args:
        image: (C, X, Y, Z) preprocessed intensities.
        labels: (X, Y, Z) preprocessed labels, -1 outside the image's nonzero region.
        instances: (X, Y, Z) ids, 0 background.
        ids: (N,) the lesions whose extent is known.
        spacing_mm: of the network, one value for each of its axes; lesions have no surroundings along further axes.

    Yields:
        The crops, in the order of the ids. A lesion without surroundings is left out.

    >>> instances = np.zeros((1, 9, 9), int)
    >>> instances[0, 4, 4:6] = 3
    >>> image = np.where(instances > 0, 5.0, 1.0)[None]
    >>> crop, = crops_of_case(image, (instances > 0).astype(int), instances, np.array([3]), (2.0, 2.0))
    >>> crop.image.shape, crop.weight[0, 2].tolist()
    ((1, 1, 5, 6), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    """
    dim = len(spacing_mm)
    own = slice(-dim, None)
    margin = np.zeros(3, int)
    margin[own] = np.ceil(MARGIN_MM / np.asarray(spacing_mm)).astype(int)
    sampling = (*(FAR_MM,) * (3 - dim), *spacing_mm)
    places = find_objects(instances)
    for number in np.unique(ids):
        place = places[number - 1]
        low, high = (np.array([getattr(side, end) for side in place]) for end in ("start", "stop"))
        at_border = (low[own] == 0) | (high[own] == instances.shape[own])
        if at_border.any():
            continue
        box = tuple(slice(max(a, 0), b) for a, b in zip(low - margin, high + margin, strict=True))
        lesion = instances[box] == number
        others = (instances[box] != 0) & ~lesion
        if (others & binary_dilation(lesion, np.ones((3, 3, 3)))).any():
            continue
        weight = np.clip(1 - distance_transform_edt(~lesion, sampling) / SEAM_MM, SURROUNDINGS, LESION)
        weight[others | (labels[box] != 0) & ~lesion] = NEITHER
        around = weight == SURROUNDINGS
        if around.any():
            pixels = np.asarray(image[(slice(None), *box)], np.float32)
            yield LesionCrop(pixels, weight.astype(np.float32), np.where(lesion, labels[box], 0))


def _write_crops(prepared: PreprocessedInstances, case: str) -> None:
    image, labels, instances = prepared.load(case)
    table = np.load(centers_file(prepared.folder, case))
    spacing_mm = tuple(prepared.configuration.spacing)
    crops = list(crops_of_case(image, labels, instances, table[:, 0].astype(int), spacing_mm))
    n_lesions = len(np.unique(instances[instances > 0]))
    write_crops(crops, n_lesions, crops_file(prepared.folder, case), _origin(prepared, case))


def write_crops(crops: list[LesionCrop], n_lesions: int, path: Path, made_from: str = "") -> None:
    """Write the lesions of a case for :class:`CaseCrops`, completely or not at all.

    Args:
        crops: the lesions.
        n_lesions: number of all lesions of the case.
        path: the file.
        made_from: what the crops were made from, kept in the file.
    """
    around = [crop.surroundings for crop in crops]
    tables: dict[str, Any] = {
        "size": np.array([np.ptp(np.nonzero(crop.labels), axis=1) + 1 for crop in crops], int).reshape(-1, 3),
        "level": np.array([values.mean(axis=1) for values in around]),
        "spread": np.array([values.std(axis=1) for values in around]),
        "n_lesions": np.array(n_lesions),
        MADE_FROM: np.array(made_from),
    }
    voxels: dict[str, Any] = {str(i): np.concatenate([crop.image, crop.weight[None]]) for i, crop in enumerate(crops)}
    voxels |= {f"labels_{i}": crop.labels[crop.weight == LESION] for i, crop in enumerate(crops)}
    with atomic_path(path) as temporary:
        np.savez(temporary, **tables, **voxels)


def _origin(prepared: PreprocessedInstances, case: str) -> str:
    """What the file of a case is made from. The size of an image changes with its normalization."""
    images = (prepared.source_folder / f"{case}{ending}" for ending in (".b2nd", ".npz"))
    image_bytes = next(image.stat().st_size for image in images if image.is_file())
    made_from = prepared.record(case).get("made_from")
    return json.dumps({"format": FORMAT, "image_bytes": image_bytes, "map": made_from}, sort_keys=True)


def _is_current(prepared: PreprocessedInstances, case: str) -> bool:
    file = crops_file(prepared.folder, case)
    if not is_whole(file):
        return False
    with np.load(file) as arrays:
        return str(arrays[MADE_FROM]) == _origin(prepared, case)
