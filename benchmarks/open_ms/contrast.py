"""Brightness of lesions by size, in a cohort and in real patients."""

import os
from pathlib import Path

import cc3d
import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_conflunet.simulation.lesions import MIN_EXTENT_MM, MIN_VOLUME_MM3
from open_ms.data import FLAIR_PATIENTS, OpenMS

SIZES_MM3 = (14, 30), (30, 100), (100, 500), (500, 2000), (2000, float("inf"))
PERCENTILES = 10, 50, 90


def lesion_signals(image: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Size and signal of the components of a mask, on a 1 mm grid.

    Args:
        image: (Z, Y, X) numbers, 0 outside the brain.
        lesions: (Z, Y, X) bool.

    Returns:
        (N, 3) float64 of the components (26-connectivity) of at least 14 mm3 and 3 mm along each axis: volume in mm3,
        median signal, brightest signal, both relative to the median of the rest of the brain.
    """
    normal = float(np.median(image[(image != 0) & ~lesions]))
    labels = cc3d.connected_components(lesions.astype(np.uint8), connectivity=26)
    rows = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        values = image[box][labels[box] == label] / normal
        if len(values) >= MIN_VOLUME_MM3 and min(side.stop - side.start for side in box) >= MIN_EXTENT_MM:
            rows.append((len(values), np.median(values), values.max()))
    return np.array(rows, float).reshape(-1, 3)


def cohort_signals(folder: str | os.PathLike) -> np.ndarray:
    """:func:`lesion_signals` of all cases of a dataset."""
    rows = []
    for path in sorted(Path(folder).glob("labelsT[rs]/*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        image_path = path.parent.parent / path.parent.name.replace("labels", "images") / f"{name}_0000.nii.gz"
        image, mask = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (image_path, path))
        rows.append(lesion_signals(image, mask > 0))
    return np.concatenate(rows or [np.zeros((0, 3))])


def patient_signals(data: OpenMS) -> np.ndarray:
    """:func:`lesion_signals` of the real patients who have a FLAIR."""
    return np.concatenate([lesion_signals(data.flair(patient)[0], data.mask(patient)[0]) for patient in FLAIR_PATIENTS])


def contrast_table(cohort: np.ndarray, patients: np.ndarray) -> str:
    """A Markdown table of the signals by size, 10th, 50th and 90th percentile over components.

    Args:
        cohort: (N, 3) from :func:`cohort_signals`.
        patients: (M, 3) from :func:`patient_signals`.
    """
    lines = [
        "| components (this cohort, patients) | median voxel, this cohort | patients "
        "| brightest voxel, this cohort | patients |",
        "| --- | --- | --- | --- | --- |",
    ]
    for low, high in SIZES_MM3:
        ours, theirs = (rows[(rows[:, 0] >= low) & (rows[:, 0] < high)] for rows in (cohort, patients))
        size = f"{low}-{high} mm3" if np.isfinite(high) else f"above {low} mm3"
        cells = [_percentiles(rows[:, column]) for column in (1, 2) for rows in (ours, theirs)]
        lines.append(f"| {size} ({len(ours)}, {len(theirs)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percentiles(values: np.ndarray) -> str:
    return " ".join(f"{value:.2f}" for value in np.percentile(values, PERCENTILES)) if len(values) else "-"
