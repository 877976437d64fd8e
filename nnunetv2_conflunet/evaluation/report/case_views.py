"""Slices of a case with its lesions in color."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nibabel.orientations import apply_orientation, io_orientation
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from scipy.ndimage import find_objects

from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.pictures.colors import touching_colors
from nnunetv2_conflunet.pictures.images import Window, read_background
from nnunetv2_conflunet.utilities.errors import InputError

STATUS_COLORS = {"TP": "#009E73", "FP": "#D55E00", "FN": "#0072B2"}
# Each status with the side that it belongs to, in drawing order: predictions are drawn over references.
STATUSES = (("FN", "reference"), ("FP", "prediction"), ("TP", "prediction"))
MARGIN_VOXELS = 8


def case_view(
    case: CaseResult,
    lesions: pd.DataFrame,
    background: tuple[Mapping[int, Path], int] | None,
    reader: BaseReaderWriter,
) -> Figure:
    """Up to three slices of a case, each with image, reference lesions, predicted lesions, and TP, FP and FN.

    Images with an orientation are shown as axial slices in radiological convention (the patient's right on the left);
    others as stored.

    Args:
        case: from a summary.
        lesions: the rows of the case in ``lesions.csv``; lesions removed by the size filter are not drawn.
        background: the images of the case by channel, and the channel to draw on; None for a plain background.
        reader: of the dataset.

    Raises:
        InputError: a file is missing or unreadable, or is not on the grid of the reference.
    """
    for file in filter(None, (case.reference_file, case.prediction_file)):
        if not Path(file).is_file():
            raise InputError(
                f"{file}, which was evaluated, does not exist (seen from {Path.cwd()}). Run "
                "nnUNetv2_conflunet_evaluate again, or show no cases with --n_cases 0."
            )
    reference, properties = read_instances(case.reference_file, reader)
    geometry = Geometry.from_properties(reference.shape, properties)
    prediction = np.zeros_like(reference)
    if case.prediction_file is not None:
        prediction, _ = read_instances(case.prediction_file, reader)
    if prediction.shape != reference.shape:
        raise InputError(
            f"{case.prediction_file} has size {prediction.shape}, its reference {reference.shape}; a map has changed "
            "since the evaluation. Run nnUNetv2_conflunet_evaluate again."
        )
    image, window = np.zeros(reference.shape, np.float32), (0.0, 1.0)
    if background is not None:
        image, window = read_background(*background, reader, Path(case.reference_file), geometry)
    maps = {"reference": reference, "prediction": prediction}
    for side, instances in maps.items():
        maps[side] = np.where(np.isin(instances, lesions.loc[lesions["side"] == side, "id"]), instances, 0)
    status = np.zeros(reference.shape, np.int8)
    for number, (name, side) in enumerate(STATUSES, start=1):
        chosen = (lesions["side"] == side) & (lesions["status"] == name)
        status[np.isin(maps[side], lesions.loc[chosen, "id"])] = number
    return _draw(*_as_axial([image, maps["reference"], maps["prediction"], status], geometry), window)


def _draw(maps: list[np.ndarray], spacing_mm: tuple[float, float], window: Window) -> Figure:
    background, reference, prediction, status = maps
    low, high = window
    slices = _slices(status)
    touching = touching_colors(reference), touching_colors(prediction)
    known = np.isfinite(background)
    content = known & (background != 0)
    rows, columns = _frame(content if content.any() else status)
    # What is no number, as outside of a masked brain, is black.
    background = np.where(known, background, low)
    shape = (rows.stop - rows.start) * spacing_mm[0], (columns.stop - columns.start) * spacing_mm[1]
    figure = Figure(figsize=(10, 10 / 4 * len(slices) * shape[0] / shape[1] + 0.3), layout="constrained")
    grid = figure.subplots(len(slices), 4, squeeze=False)
    for row, index in zip(grid, slices, strict=True):
        view = index, rows, columns
        gray = np.clip((background[view] - low) / max(high - low, 1e-6), 0, 1)[..., None].repeat(3, axis=2)
        instances = [
            _overlay(gray, ids[view], colors) for ids, colors in zip((reference, prediction), touching, strict=True)
        ]
        statuses = _overlay(gray, status[view], {i: STATUS_COLORS[name] for i, (name, _) in enumerate(STATUSES, 1)})
        for axes, panel in zip(row, (gray, *instances, statuses), strict=True):
            axes.imshow(panel, aspect=spacing_mm[0] / spacing_mm[1], interpolation="nearest")
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("image", "reference", "prediction", "TP / FP / FN"), strict=True):
        axes.set_title(title)
    return figure


def _overlay(gray: np.ndarray, numbers: np.ndarray, colors: Mapping[int, str]) -> np.ndarray:
    """The (X, Y, 3) image with each number but 0 in its color; `colors` by ascending number."""
    rgb = np.array([(0, 0, 0), *map(to_rgb, colors.values())])[np.searchsorted([0, *colors], numbers)]
    return np.where(numbers[..., None] > 0, 0.35 * gray + 0.65 * rgb, gray)


def _as_axial(maps: list[np.ndarray], geometry: Geometry) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Maps as (slice, row, column) for display, and the voxel size along row and column."""
    if geometry.world == "none" or geometry.is_plane:
        _, row_mm, column_mm = geometry.spacing_mm
        return maps, (row_mm, column_mm)
    orientation = io_orientation(geometry.affine)
    spacing = dict(zip(orientation[:, 0].astype(int), geometry.spacing_mm, strict=True))
    upright = [apply_orientation(array, orientation)[::-1, ::-1].transpose(2, 1, 0) for array in maps]
    return upright, (spacing[1], spacing[0])


def _slices(status: np.ndarray) -> list[int]:
    """The slices with the most voxels of TP, of FP and of FN, ascending; without lesions the middle slice."""
    counts = [(status == number).sum(axis=(1, 2)) for number in range(1, 1 + len(STATUSES))]
    return sorted({int(count.argmax()) for count in counts if count.any()}) or [len(status) // 2]


def _frame(content: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns with content in any slice, plus a margin; all of them if there is no content."""
    flat = (content != 0).any(axis=0)
    filled, *_ = find_objects(flat.astype(np.uint8)) or [tuple(slice(0, n) for n in flat.shape)]
    rows, columns = (
        slice(max(0, found.start - MARGIN_VOXELS), min(n, found.stop + MARGIN_VOXELS))
        for found, n in zip(filled, flat.shape, strict=True)
    )
    return rows, columns
