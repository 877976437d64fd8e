"""One plane of an image as SVG, with its lesions outlined voxel by voxel."""

import base64
import io
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from matplotlib.image import imsave
from scipy.ndimage import find_objects

from nnunetv2_conflunet.pictures.names import Box, Pixels, place_names
from nnunetv2_conflunet.pictures.sections import Section

# Widths and sizes as shares of the picture's longer side, for pictures of about 300 pixels.
LINE, TEXT, MARGIN = 0.006, 0.045, 0.012
# Lengths of scale bars, times a power of ten.
SCALE_BARS = (5, 2, 1)
# Opacity of the lines of what lies in other slices.
FAINT = 0.5
# Where no color is given.
OTHER = "#d0d0d0"


def draw_section(
    section: Section,
    ids: np.ndarray,
    image: np.ndarray | None,
    window: tuple[float, float],
    colors: Mapping[int, str],
    *,
    named: Collection[int] = (),
    elsewhere: Mapping[int, np.ndarray] | None = None,
    frame: Box | None = None,
    side_mm: float | None = None,
) -> str:
    """A picture of one plane, in mm; the browser scales it.

    Lines run inside the lesions along their voxels' edges, so that those of touching lesions lie side by side.

    Args:
        section: the plane.
        ids: (R, C) instances in it, see :meth:`Section.cut`.
        image: (R, C) gray values, None for black.
        window: the gray values that are black and white.
        colors: id -> color; other instances are light gray.
        named: ids to write beside their lesions, if there is room.
        elsewhere: id -> (R, C) bool, where the instance lies in any slice; drawn faintly.
        frame: left, top, width and height of a dashed rectangle, in mm.
        side_mm: lines and letters are sized for a picture of this side. Default: the longer one of this picture.

    Returns:
        An ``svg`` element; what is drawn over the image is of class ``marks``.

    >>> from nnunetv2_conflunet.imageio import Geometry
    >>> from nnunetv2_conflunet.pictures.sections import sections_through
    >>> geometry = Geometry.from_properties((1, 4, 6), {"spacing": (1.0, 0.5, 0.5)})
    >>> (section,) = sections_through(geometry, (0, 0, 0))
    >>> draw_section(section, np.eye(4, 6, dtype=int), None, (0, 1), {1: "red"})[:28]
    '<svg viewBox="0 0 3 2" role='
    """
    height, width = section.size_mm
    side = side_mm or max(height, width)
    shown = np.zeros(ids.shape) if image is None else image
    present, rank = np.unique(ids, return_inverse=True)
    found = zip(present.tolist(), find_objects(rank.reshape(ids.shape) + 1), strict=True)
    boxes = {i: box for i, box in found if i}
    outlines = [(i, ids[box] == i, box, 1.0) for i, box in boxes.items()]
    for i, mask in (elsewhere or {}).items():
        # An empty mask has no box.
        for box in find_objects(mask.astype(np.uint8)):
            outlines.insert(0, (i, mask[box], box, FAINT))
            boxes.setdefault(i, box)
    marks = [
        f'<path d="{outline(mask, box, section.pixel_mm, LINE * side)}" fill="{colors.get(i, OTHER)}" '
        f'fill-opacity="{opacity:g}"/>'
        for i, mask, box, opacity in outlines
    ]
    if frame is not None:
        left, top, wide, high = map(_short, frame)
        line = f'stroke="white" stroke-width="{LINE * side:.3g}" stroke-dasharray="{3 * LINE * side:.3g}"'
        marks.append(f'<rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="none" {line}/>')
    places = place_names(ids, boxes, named, section.pixel_mm, TEXT * side)
    marks += [_text(str(i), *place, TEXT * side, colors.get(i, OTHER), "start") for i, place in places.items()]
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{section.title}">'
        f'<image width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
        f'href="{gray_png(shown, window)}"/>{_letters(section, side)}{_scale_bar(section, side)}'
        f'<g class="marks">{"".join(marks)}</g></svg>'
    )


def gray_png(image: np.ndarray, window: tuple[float, float]) -> str:
    """A gray image as a PNG in a data URI; what is not a number is black."""
    low, high = window
    gray = np.clip((np.nan_to_num(image.astype(np.float32), nan=low) - low) / max(high - low, 1e-6), 0, 1)
    buffer = io.BytesIO()
    imsave(buffer, gray, cmap="gray", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outline(mask: np.ndarray, at: Pixels, pixel_mm: tuple[float, float], line_mm: float) -> str:
    """The path data of bars along all edges of a mask, inside it.

    Args:
        mask: (R, C) bool.
        at: where it lies in the picture, in pixels.
        pixel_mm: size of a pixel, down and across.
        line_mm: thickness of the bars.

    >>> outline(np.ones((1, 2), bool), (slice(3, 4), slice(0, 2)), (1.0, 2.0), 0.25)
    'M0 3h4v.25h-4zM0 3.75h4v.25h-4zM0 3h.25v1h-.25zM3.75 3h.25v1h-.25z'
    """
    down, across = pixel_mm
    # Those of both sides of a single voxel fill it at most.
    line_down, line_across = min(line_mm, down / 2), min(line_mm, across / 2)
    top, left = at[0].start, at[1].start
    parts = []
    for last in (False, True):
        for row, start, stop in _runs(_edges(mask, last)):
            y = (top + row) * down + (down - line_down if last else 0)
            parts.append(_bar((left + start) * across, y, (stop - start) * across, line_down))
    for last in (False, True):
        for column, start, stop in _runs(_edges(mask.T, last)):
            x = (left + column) * across + (across - line_across if last else 0)
            parts.append(_bar(x, (top + start) * down, line_across, (stop - start) * down))
    return "".join(parts)


def _edges(mask: np.ndarray, last: bool) -> np.ndarray:
    """Pixels whose neighbor in the row before, or in the row after, is outside."""
    padded = np.pad(mask, ((1, 1), (0, 0)))
    return mask & ~(padded[2:] if last else padded[:-2])


def _runs(edges: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, start and end of all runs of True."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, stops) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True)


def _bar(x: float, y: float, width: float, height: float) -> str:
    return f"M{_short(x)} {_short(y)}h{_short(width)}v{_short(height)}h{_short(-width)}z"


def _short(value: float) -> str:
    return f"{value:.6g}".replace("0.", ".", 1) if abs(value) < 1 and value else f"{value:.6g}"


def _letters(section: Section, side: float) -> str:
    height, width = section.size_mm
    high = TEXT * side
    margin = MARGIN * side
    left, right, top, bottom = section.letters
    return "".join(
        _text(letter, x, y, high, "white", anchor)
        for letter, x, y, anchor in (
            (left, margin, height / 2, "start"),
            (right, width - margin, height / 2, "end"),
            (top, width / 2, margin + high * 0.8, "middle"),
            (bottom, width / 2, height - margin, "middle"),
        )
        if letter
    )


def _scale_bar(section: Section, side: float) -> str:
    height, width = section.size_mm
    decade = 10.0 ** math.floor(math.log10(side / 4))
    length = next((step * decade for step in SCALE_BARS if step * decade <= side / 4), decade)
    high, margin = TEXT * side, 2 * MARGIN * side
    x, y = width - margin - length, height - margin
    bar = f'<rect x="{x:.5g}" y="{y:.5g}" width="{length:g}" height="{LINE * 1.5 * side:.3g}" fill="white"/>'
    return bar + _text(f"{length:g} mm", width - margin, y - margin / 2, high * 0.8, "white", "end")


def _text(text: str, x: float, y: float, high: float, color: str, anchor: str) -> str:
    halo = f'stroke="black" stroke-width="{high * 0.2:.3g}" paint-order="stroke"'
    place = f'x="{x:.5g}" y="{y:.5g}" font-size="{high:.3g}"'
    return f'<text {place} fill="{color}" text-anchor="{anchor}" {halo}>{text}</text>'
