"""The contact sheet of one case."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.evaluation.report.figures import as_data_uri
from nnunetv2_conflunet.evaluation.report.sheets.histogram import size_histogram
from nnunetv2_conflunet.evaluation.report.sheets.places import Place, largest_lesion, touching_groups
from nnunetv2_conflunet.evaluation.report.tables import number
from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.inference.lesion_table import lesion_table
from nnunetv2_conflunet.pictures.colors import touching_colors
from nnunetv2_conflunet.pictures.images import read_background
from nnunetv2_conflunet.pictures.sections import tilt_degrees
from nnunetv2_conflunet.pictures.views import View
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.spreadsheets import parsed

# Groups of touching lesions that get pictures.
MAX_GROUPS = 4
# Columns of a prediction's table that are shown, with their headings.
FROM_TABLE = {"mean_probability": "probability", "center_score": "center score", "confidence": "confidence"}
# From here on the planes of an image are not those of the patient.
OBLIQUE_DEGREES = 10.0


@dataclass(frozen=True)
class SheetInput:
    """The files of one case.

    Attributes:
        case: its name.
        instances: the instance map.
        table: its lesion table, if there is one.
        images: the case's images by channel; None draws on black.
    """

    case: str
    instances: Path
    table: Path | None
    images: dict[int, Path] | None


def case_sheet(files: SheetInput, channel: int, reader: type[BaseReaderWriter]) -> dict[str, Any]:
    """Read a case and draw its sheet.

    Args:
        files: of the case.
        channel: of the image, from 0.
        reader: class of the dataset's reader.

    Returns:
        What the page's template shows.

    Raises:
        InputError: a file cannot be used, or the image is not on the map's grid.
    """
    instances, properties = read_instances(files.instances, reader())
    geometry = Geometry.from_properties(instances.shape, properties)
    image, window = None, (0.0, 1.0)
    if files.images is not None:
        image, window = read_background(files.images, channel, reader(), files.instances, geometry)
    colors = touching_colors(instances)
    largest, groups = largest_lesion(instances, geometry), touching_groups(instances, geometry)
    lesions = _with_scores(lesion_table(instances, geometry), files.table)
    views = _views(instances, geometry, largest, groups)
    drawn = [
        {"title": title, "pictures": view.draw(image, window, colors, named=named, frames=frames)}
        for title, view, named, frames in views
    ]
    tilt = tilt_degrees(geometry)
    return {
        "name": files.case,
        "text": _summary(lesions, groups, geometry),
        "tilt": f"The image is tilted by {tilt:.0f}° against the patient's axes." if tilt > OBLIQUE_DEGREES else "",
        "views": drawn,
        "sections": [section for _, view, _, _ in views for section in view.sections],
        "table": _rows(lesions, groups, colors, geometry),
        "histogram": as_data_uri(size_histogram(lesions, geometry.is_plane)) if len(lesions) else None,
    }


def _views(
    instances: np.ndarray, geometry: Geometry, largest: Place | None, groups: list[Place]
) -> list[tuple[str, View, list[int], View | None]]:
    """Title, planes, named lesions and framed planes of each row of pictures."""
    if largest is None:
        middle = [n // 2 for n in geometry.shape]
        return [("The middle of the image", View.of(instances, geometry, middle), [], None)]
    (number,) = largest.ids
    close = View.of(instances, geometry, largest.voxel, largest.field_mm)
    whole = View.of(instances, geometry, largest.voxel)
    every = "The whole image, with" if geometry.is_plane else "Whole planes through"
    views: list[tuple[str, View, list[int], View | None]] = [
        (f"{every} the largest lesion ({number})", whole, [number], close),
        (f"The largest lesion ({number})", close, _present(close), None),
    ]
    for group in groups[:MAX_GROUPS]:
        view = View.of(instances, geometry, group.voxel, group.field_mm)
        views.append((f"Touching lesions {list_some(group.ids, 12)}", view, _present(view), None))
    return views


def _present(view: View) -> list[int]:
    return np.unique(np.concatenate([ids.ravel() for ids in view.ids])).tolist()


def _with_scores(lesions: pd.DataFrame, table: Path | None) -> pd.DataFrame:
    """The lesions with the scores that prediction wrote, which cannot be computed from the map."""
    if table is None:
        return lesions
    try:
        written = parsed(table)
        if "id" not in written:
            return lesions
        known = [column for column in (*FROM_TABLE, "label") if column in written]
        left = lesions.drop(columns=[column for column in known if column in lesions])
        numbers = written[["id", *known]].apply(pd.to_numeric)
        return left.merge(numbers, on="id", how="left", validate="one_to_one")
    except (OSError, ValueError) as error:
        raise InputError(f"{table} cannot be read as a lesion table ({error}); repair it, or move it away.") from error


def _summary(lesions: pd.DataFrame, groups: list[Place], geometry: Geometry) -> str:
    n, n_touching = len(lesions), sum(len(group.ids) for group in groups)
    if not n:
        return "No lesions."
    column = "area_mm2" if geometry.is_plane else "volume_mm3"
    total = size_text(lesions[column].sum(), geometry.is_plane)
    text = f"{n} lesion{'s' * (n > 1)}, {total} in all; "
    text += f"{n_touching} touch another, in {len(groups)} group{'s' * (len(groups) > 1)}." if groups else "none touch."
    hidden = len(groups) - MAX_GROUPS
    return text + (f" {hidden} smaller group{'s have' if hidden > 1 else ' has'} no picture." if hidden > 0 else "")


def size_text(size: float, is_plane: bool) -> str:
    """A volume or an area with its unit.

    >>> size_text(12345.6, False), size_text(120.04, False), size_text(12.34, True)
    ('12.3 mL', '120 mm³', '12.3 mm²')
    """
    if is_plane:
        return f"{size:.3g} mm²" if size < 1000 else f"{size:,.0f} mm²"
    return f"{size / 1000:.1f} mL" if size >= 1000 else f"{size:.3g} mm³"


def _rows(
    lesions: pd.DataFrame, groups: list[Place], colors: Mapping[int, str], geometry: Geometry
) -> dict[str, list[Any]]:
    """Heading and rows of the table, largest lesions first; each row begins with its color."""
    size = "area_mm2" if geometry.is_plane else "volume_mm3"
    touching = {label: [other for other in group.ids if other != label] for group in groups for label in group.ids}
    scores = [column for column in FROM_TABLE if column in lesions and lesions[column].notna().any()]
    labels = ["label"] if lesions["label"].nunique() > 1 else []
    header = ["id", "mm²" if geometry.is_plane else "mm³", "diameter mm", "x, y, z mm", "i, j, k"]
    rows = []
    for row in lesions.sort_values([size, "id"], ascending=[False, True]).to_dict("records"):
        world = ", ".join(f"{row[f'centroid_world_{axis}_mm']:.1f}" for axis in "xyz")
        voxel = ", ".join(f"{row[f'centroid_voxel_{axis}']:.0f}" for axis in "ijk")
        cells = [row["id"], f"{row[size]:,.1f}", f"{row['largest_diameter_mm']:.1f}", world, voxel]
        cells += [number(row[column], 2) for column in scores] + [row[column] for column in labels]
        rows.append([colors[row["id"]], *cells, list_some(touching.get(row["id"], []), 4)])
    return {"header": [*header, *(FROM_TABLE[column] for column in scores), *labels, "in a group with"], "rows": rows}
