"""Planes through a point of an image, as a person views them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from nibabel.orientations import io_orientation

from nnunetv2_conflunet.imageio import Geometry

# By the world axis across the plane (x, y, z): its name, the world axes down and across the picture, the letters.
ANATOMICAL = {
    2: ("axial", 1, 0, ("R", "L", "A", "P")),
    1: ("coronal", 2, 0, ("R", "L", "S", "I")),
    0: ("sagittal", 2, 1, ("A", "P", "S", "I")),
}
UNKNOWN = ("", "", "", "")
WORLD_AXES = "xyz"
FILE_AXES = "ijk"


@dataclass(frozen=True)
class Section:
    """A rectangle of one slice of an image, and how it is turned for display.

    Attributes:
        title: such as ``"axial, k = 85, z = 13.0 mm"``: the slice in the file, and its world position where known.
        axis: the array axis across the plane.
        index: the slice along that axis.
        down, across: the array axes that run down and across the picture.
        rows, columns: what is shown along these, as half-open ranges of array indices.
        flipped: whether the picture runs against the array, down and across.
        pixel_mm: size of a pixel, down and across.
        letters: of the directions left, right, top and bottom of the picture; empty where they are not known.
    """

    title: str
    axis: int
    index: int
    down: int
    across: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    flipped: tuple[bool, bool]
    pixel_mm: tuple[float, float]
    letters: tuple[str, str, str, str]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the picture."""
        rows, columns = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        return rows * self.pixel_mm[0], columns * self.pixel_mm[1]

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The pixels of the picture, top row first, as a copy.

        Args:
            array: (X, Y, Z) of the image's grid.
        """
        at: list[int | slice] = [0, 0, 0]
        at[self.axis], at[self.down], at[self.across] = self.index, slice(*self.rows), slice(*self.columns)
        plane = array[tuple(at)]
        plane = plane if self.down < self.across else plane.T
        down, across = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return plane[down, across].copy()

    def project(self, at: np.ndarray) -> np.ndarray:
        """Where some voxels lie in the picture when looked at across all slices, (R, C) bool.

        Args:
            at: (N, 3) array indices.
        """
        shape = self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]
        row, column = at[:, self.down] - self.rows[0], at[:, self.across] - self.columns[0]
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        found = np.zeros(shape, bool)
        found[row[inside], column[inside]] = True
        down, across = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        return found[down, across]

    def shows_same_part(self, other: "Section") -> bool:
        """Whether both show the same part of their slice."""
        return (self.rows, self.columns) == (other.rows, other.columns)

    def box_of(self, other: "Section") -> tuple[float, float, float, float]:
        """Left, top, width and height in mm, in this picture, of a section through the same slice."""
        left, top = (
            (mine[1] - its[1] if flip else its[0] - mine[0]) * mm
            for mine, its, flip, mm in (
                (self.columns, other.columns, self.flipped[1], self.pixel_mm[1]),
                (self.rows, other.rows, self.flipped[0], self.pixel_mm[0]),
            )
        )
        height, width = other.size_mm
        return left, top, width, height


def sections_through(
    geometry: Geometry, voxel: Sequence[int] | np.ndarray, field_mm: float | None = None
) -> tuple[Section, ...]:
    """The three planes of an image through one voxel; of a 2D image, its only one.

    Volumes with an orientation are shown as axial, coronal and sagittal planes (of the image's own axes nearest to
    these) in radiological convention: the patient's right on the left side of axial and coronal planes, the front on
    the left side of sagittal ones. Others, and 2D images, are shown as stored, without letters.

    Args:
        geometry: of the image.
        voxel: (3,) array index.
        field_mm: side of the square that is shown around the voxel, moved where it would leave the image; None shows
            the whole plane.

    >>> geometry = Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)})
    >>> [section.cut(np.zeros((4, 5, 6))).shape for section in sections_through(geometry, (0, 0, 0))]
    [(5, 6), (4, 6), (4, 5)]
    """
    if geometry.is_plane or geometry.world == "none":
        planes = [(0, 1, 2)] if geometry.is_plane else [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
        return tuple(_section(geometry, voxel, field_mm, "as stored", *axes) for axes in planes)
    orientation = io_orientation(geometry.affine)
    array_axis = {int(world): axis for axis, (world, _) in enumerate(orientation)}
    # Everything is shown from the high to the low end of its world axis.
    ascends = {int(world): sign > 0 for world, sign in orientation}
    at_mm = geometry.to_world_mm(np.asarray(voxel)[None])[0]
    sections = []
    for world, (name, down, across, letters) in ANATOMICAL.items():
        axes = array_axis[world], array_axis[down], array_axis[across]
        stored = _section(geometry, voxel, field_mm, name, *axes)
        title = f"{stored.title}, {WORLD_AXES[world]} = {at_mm[world]:.1f} mm"
        sections.append(replace(stored, title=title, flipped=(ascends[down], ascends[across]), letters=letters))
    return tuple(sections)


def tilt_degrees(geometry: Geometry) -> float:
    """The largest angle between an axis of the image and the world axis for which it is taken.

    >>> round(tilt_degrees(Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)})))
    0
    """
    closest = np.abs(geometry.direction).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(closest, 0, 1))).max())


def _section(
    geometry: Geometry,
    voxel: Sequence[int] | np.ndarray,
    field_mm: float | None,
    name: str,
    axis: int,
    down: int,
    across: int,
) -> Section:
    """A plane as stored."""
    file_axis = int(np.abs(geometry.file_index[:3, axis]).argmax())
    slice_in_file = int(np.rint(geometry.file_index[file_axis] @ np.append(np.asarray(voxel, float), 1.0)))
    title = name if geometry.is_plane else f"{name}, {FILE_AXES[file_axis]} = {slice_in_file}"
    rows, columns = (_range(geometry, int(voxel[along]), along, field_mm) for along in (down, across))
    pixel_mm = geometry.spacing_mm[down], geometry.spacing_mm[across]
    return Section(title, axis, int(voxel[axis]), down, across, rows, columns, (False, False), pixel_mm, UNKNOWN)


def _range(geometry: Geometry, middle: int, axis: int, field_mm: float | None) -> tuple[int, int]:
    n = geometry.shape[axis]
    if field_mm is None:
        return 0, n
    shown = min(n, max(1, round(field_mm / geometry.spacing_mm[axis])))
    start = min(max(0, middle - shown // 2), n - shown)
    return start, start + shown
