"""A picture of a semi-synthetic cohort next to the real patients."""

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path
from open_ms.cohort import crop_to
from open_ms.data import ENDING, FLAIR_PATIENTS, OpenMS, read_flair, read_map

SIMULATED_CASES = 5
# Positions of the slices, relative to the height of the image.
HEIGHTS = 0.35, 0.5, 0.6, 0.7
# Display window, relative to the median of the brain.
WINDOW = 0.0, 1.7
OPACITY = 0.55


def draw_picture(folder: str | os.PathLike, data: OpenMS, path: str | os.PathLike) -> None:
    """Draw axial slices of five simulated cases and of the real patients, without and with their lesions in color.

    One row per case, with its name on the left. In simulated cases every instance has its own color; masks of patients
    have a single color, since their lesions are not separated.

    Args:
        folder: the dataset.
        data: the open MS database.
        path: the PNG.

    Raises:
        InputError: the dataset holds no cases.
    """
    rows = _simulated(Path(folder))
    grid = rows[0][3]
    for patient in FLAIR_PATIENTS:
        (flair, own), (mask, _) = data.flair(patient), data.mask(patient)
        rows.append((patient, crop_to(flair, own, grid), crop_to(mask.astype(np.int32), own, grid), grid))
    columns = 2 * len(HEIGHTS)
    aspect = grid.shape[1] / grid.shape[2]
    figure = Figure(figsize=(2 * columns, 2 * aspect * len(rows)), facecolor="black")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, image, lesions, _) in zip(axes, rows, strict=True):
        _draw_row(line, name, image, lesions)
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, facecolor="black")


def _simulated(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray, Grid]]:
    """Name, image, instances and grid of the first cases."""
    rows = []
    for path in sorted(folder.glob("instancesT[rs]/*.nii.gz"))[:SIMULATED_CASES]:
        name = path.name.removesuffix(ENDING)
        image, grid = read_flair(folder / path.parent.name.replace("instances", "images") / f"{name}_0000{ENDING}")
        rows.append((name, image, read_map(path)[0], grid))
    if not rows:
        raise InputError(f"{folder} holds no instance maps (instancesTr/*.nii.gz).")
    return rows


def _draw_row(line: np.ndarray, name: str, image: np.ndarray, lesions: np.ndarray) -> None:
    """Slices of one case, each next to a copy with the lesions in color."""
    gray = np.clip((image / np.median(image[image != 0]) - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
    colors = np.random.default_rng(0).permutation(_hues(max(2, int(lesions.max()) + 1)))
    for index, height in enumerate(HEIGHTS):
        z = int(height * len(image))
        plain = np.repeat(gray[z][..., None], 3, axis=-1)
        inside = (lesions[z] > 0)[..., None]
        colored = np.where(inside, (1 - OPACITY) * plain + OPACITY * colors[lesions[z]], plain)
        for axis, picture in ((line[2 * index], plain), (line[2 * index + 1], colored)):
            axis.imshow(picture, origin="lower", interpolation="nearest")
            axis.axis("off")
    line[0].text(2, 2, name, color="yellow", fontsize=8)


def _hues(count: int) -> np.ndarray:
    """(count, 3) saturated colors around the color circle."""
    phases = 2 * np.pi * (np.arange(count)[:, None] / count + np.array([0, 1 / 3, 2 / 3]))
    return np.clip(0.5 + 0.75 * np.cos(phases), 0, 1)
