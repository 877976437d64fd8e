"""Where the numbers of lesions are written in a picture."""

from collections.abc import Collection, Mapping

import numpy as np

Pixels = tuple[slice, slice]
Box = tuple[float, float, float, float]
# Of a digit, relative to its height.
DIGIT_WIDTH = 0.62


def place_names(
    ids: np.ndarray,
    boxes: Mapping[int, Pixels],
    named: Collection[int],
    pixel_mm: tuple[float, float],
    high_mm: float,
) -> dict[int, tuple[float, float]]:
    """Choose a place at a corner of each lesion, where its number covers as little of lesions as possible.

    Larger lesions choose first; a number that would cover another one is left out.

    Args:
        ids: (R, C) instances in the picture.
        boxes: of all instances, in pixels.
        named: the instances whose numbers are written.
        pixel_mm: size of a pixel, down and across.
        high_mm: of the digits.

    Returns:
        id -> left end and baseline of its number, in mm.

    >>> ids = np.zeros((20, 20), int)
    >>> ids[8:12, 8:12] = 7
    >>> place_names(ids, {7: (slice(8, 12), slice(8, 12))}, [7], (1.0, 1.0), 3.0)
    {7: (12.45, 9.5)}
    """
    covered = ids != 0
    area = {i: int(np.count_nonzero(ids[boxes[i]] == i)) for i in boxes if i in named}
    places: dict[int, tuple[float, float]] = {}
    taken: list[Box] = []
    for i in sorted(area, key=lambda i: (-area[i], i)):
        candidates = _corners(boxes[i], len(str(i)), ids.shape, pixel_mm, high_mm)
        free = [box for box in candidates if not any(_overlap(box, other) for other in taken)]
        if free:
            chosen = min(free, key=lambda box: _n_covered(covered, box, pixel_mm))
            taken.append(chosen)
            places[i] = chosen[0], chosen[3]
    return places


def _corners(
    at: Pixels, n_digits: int, shape: tuple[int, ...], pixel_mm: tuple[float, float], high_mm: float
) -> list[Box]:
    """Left, top, right and bottom of the number at each corner of a lesion, moved into the picture."""
    (rows, columns), (down, across) = at, pixel_mm
    wide, gap = DIGIT_WIDTH * high_mm * n_digits, 0.15 * high_mm
    boxes = []
    for x in (columns.stop * across + gap, columns.start * across - gap - wide):
        for y in (rows.start * down + high_mm / 2, rows.stop * down + high_mm / 2):
            left = min(max(0.0, x), shape[1] * across - wide)
            bottom = min(max(high_mm, y), shape[0] * down - gap)
            boxes.append((left, bottom - high_mm, left + wide, bottom))
    return boxes


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _n_covered(covered: np.ndarray, box: Box, pixel_mm: tuple[float, float]) -> int:
    left, top, right, bottom = box
    rows = slice(max(0, int(top / pixel_mm[0])), int(np.ceil(bottom / pixel_mm[0])))
    columns = slice(max(0, int(left / pixel_mm[1])), int(np.ceil(right / pixel_mm[1])))
    return int(np.count_nonzero(covered[rows, columns]))
