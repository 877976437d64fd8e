"""Slices of a case with its lesions in colour."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from nibabel.orientations import apply_orientation, io_orientation
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.utilities.errors import InputError

# Lesions side by side need other colours than each other and than the status of a lesion.
INSTANCE_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#A6D854", "#FB8072", "#9E9AC8")
STATUS_COLOURS = {"TP": "#009E73", "FP": "#D55E00", "FN": "#0072B2"}
MARGIN_VOXELS = 8


def case_view(case: dict, lesions: pd.DataFrame, image: Path | None, reader: BaseReaderWriter) -> Figure:
    """Up to three slices of a case: the image, the reference's lesions, the predicted ones, and TP, FP and FN.

    Images with an orientation are shown as axial slices in radiological convention (the patient's right on the left);
    others as their files have them.

    Args:
        case: an entry of ``metric_per_case`` of a summary.
        lesions: the rows of the case in ``lesions.csv``; lesions that the size filter removed are not drawn.
        image: the image to draw on, None for a plain background.
        reader: of the dataset.

    Raises:
        InputError: a file is missing or unreadable, or the image has another size than the reference.
    """
    reference, properties = read_instances(case["reference_file"], reader)
    geometry = Geometry.from_properties(reference.shape, properties)
    prediction = np.zeros_like(reference)
    if case["prediction_file"] is not None:
        prediction, _ = read_instances(case["prediction_file"], reader)
    background = np.zeros(reference.shape, np.float32) if image is None else _read_image(image, reader)
    if background.shape != reference.shape:
        raise InputError(
            f"{image} has size {background.shape}, its reference {reference.shape}; give the case's image."
        )
    sides = dict(list(lesions.groupby("side")))
    reference = _only(reference, sides.get("reference"))
    prediction = _only(prediction, sides.get("prediction"))
    # Status of every voxel: FN lies below, predictions above.
    status = np.zeros(reference.shape, np.int8)
    for code, (name, instances, side) in enumerate(
        (("FN", reference, "reference"), ("FP", prediction, "prediction"), ("TP", prediction, "prediction")), start=1
    ):
        rows = sides.get(side)
        if rows is not None:
            status[np.isin(instances, rows.loc[rows["status"] == name, "id"].to_numpy())] = code
    maps, spacing = _as_axial([background, reference, prediction, status], geometry)
    return _draw(maps, spacing)


def _draw(maps: list[np.ndarray], spacing_mm: tuple[float, float]) -> Figure:
    background, reference, prediction, status = maps
    slices = _slices(status)
    rows, columns = _frame(background if background.any() else status)
    low, high = np.percentile(background[background != 0], (1, 99.5)) if background.any() else (0, 1)
    shape = (rows.stop - rows.start) * spacing_mm[0], (columns.stop - columns.start) * spacing_mm[1]
    figure = Figure(figsize=(10, 10 / 4 * len(slices) * shape[0] / shape[1] + 0.3), layout="constrained")
    grid = figure.subplots(len(slices), 4, squeeze=False)
    status_colours = np.array([(0, 0, 0), *(to_rgb(STATUS_COLOURS[i]) for i in ("FN", "FP", "TP"))])
    instance_colours = np.array([(0, 0, 0), *map(to_rgb, INSTANCE_COLOURS)])
    for axes, k in zip(grid, slices, strict=True):
        grey = np.clip((background[k][rows, columns] - low) / max(high - low, 1e-6), 0, 1)[..., None].repeat(3, axis=2)
        cuts = [i[k][rows, columns] for i in (reference, prediction, status)]
        instances = [np.where(i > 0, 1 + (i - 1) % len(INSTANCE_COLOURS), 0) for i in cuts[:2]]
        coloured = [*(instance_colours[i] for i in instances), status_colours[cuts[2]]]
        masks = [*(i > 0 for i in cuts[:2]), cuts[2] > 0]
        panels = [grey]
        for mask, colours in zip(masks, coloured, strict=True):
            panels.append(np.where(mask[..., None], 0.35 * grey + 0.65 * colours, grey))
        for panel, ax in zip(panels, axes, strict=True):
            ax.imshow(panel, aspect=spacing_mm[0] / spacing_mm[1], interpolation="nearest")
            ax.set_axis_off()
    for ax, title in zip(grid[0], ("image", "reference", "prediction", "TP / FP / FN"), strict=True):
        ax.set_title(title)
    return figure


def _read_image(path: Path, reader: BaseReaderWriter) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"{path} does not exist; name the folder of the images, or leave them out.")
    try:
        return reader.read_images((str(path),))[0][0]
    except Exception as error:
        raise InputError(
            f"{path} cannot be read by {type(reader).__name__} ({type(error).__name__}: {error})."
        ) from error


def _only(instances: np.ndarray, rows: pd.DataFrame | None) -> np.ndarray:
    ids = [] if rows is None else rows["id"].to_numpy()
    return np.where(np.isin(instances, ids), instances, 0)


def _as_axial(maps: list[np.ndarray], geometry: Geometry) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Maps as (slice, row, column) to show, and the size of a voxel along row and column."""
    if geometry.world == "none" or geometry.shape[0] == 1:
        return maps, geometry.spacing_mm[1:]
    orientation = io_orientation(geometry.affine)
    spacing = dict(zip(orientation[:, 0].astype(int), geometry.spacing_mm, strict=True))
    upright = [apply_orientation(i, orientation)[::-1, ::-1].transpose(2, 1, 0) for i in maps]
    return upright, (spacing[1], spacing[0])


def _slices(status: np.ndarray) -> list[int]:
    """The slices with most voxels of TP, of FP and of FN, ascending; the middle one without lesions."""
    counts = [(status == code).sum(axis=(1, 2)) for code in range(1, 1 + len(STATUS_COLOURS))]
    return sorted({int(i.argmax()) for i in counts if i.any()}) or [len(status) // 2]


def _frame(content: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold content in any slice, with a margin."""
    flat = (content != 0).any(axis=0)
    frame = []
    for axis in (1, 0):
        filled = np.flatnonzero(flat.any(axis=axis))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, flat.shape[1 - axis] - 1)
        frame.append(slice(max(0, first - MARGIN_VOXELS), min(flat.shape[1 - axis], last + 1 + MARGIN_VOXELS)))
    return frame[0], frame[1]
