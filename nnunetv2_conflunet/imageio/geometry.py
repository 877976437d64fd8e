"""World coordinates of the voxels of an image, for each of nnU-Net's readers."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunetv2_conflunet.utilities.errors import InputError

# Tolerances for the same grid: origin as a fraction of a voxel, spacing as a fraction, and direction cosines. All are
# above the rounding of float32 headers.
TOLERANCE = 1e-2, 1e-3, 1e-3
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# The readers reverse the axes of the file: array index (i, j, k) is (k, j, i) in the file.
REVERSED_AXES = np.eye(4)[[2, 1, 0, 3]]


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of an image whose array is in nnU-Net's axis order.

    Attributes:
        shape: voxels along each array axis, (X, Y, Z) in nnU-Net's order, which is slowest axis first;
            two-dimensional images have a leading axis of length 1.
        spacing_mm: voxel size in mm along each array axis.
        affine: (4, 4), array index -> world position in mm.
        world: ``"RAS"`` (x to the right, y to the front, z to the top, as NIfTI has it) or ``"none"`` for a file
            format without orientation, where a world position is index * spacing.
        file_index: (4, 4), array index -> index (i, j, k) in the file, as viewers show it; entries -1, 0, 1 and shifts.
            Default: reversed axes, as by nnU-Net's readers that do not reorient.

    >>> Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)}).to_world_mm([[1, 0, 0]]).tolist()
    [[0.0, 0.0, 3.0]]
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine: np.ndarray
    world: str
    file_index: np.ndarray = field(default_factory=REVERSED_AXES.copy)

    @classmethod
    def from_properties(cls, shape: tuple[int, ...], properties: dict) -> "Geometry":
        """Geometry from what an nnU-Net reader returned.

        Args:
            shape: (X, Y, Z) of the array without its channel axis.
            properties: the dictionary of the reader.
        """
        shape = tuple(map(int, shape))
        spacing_mm = tuple(map(float, properties["spacing"]))
        if "sitk_stuff" in properties:
            affine, world = _affine_of_sitk(properties["sitk_stuff"]), "RAS"
        elif "nibabel_stuff" in properties:
            stuff = properties["nibabel_stuff"]
            affine, world = np.asarray(stuff.get("reoriented_affine", stuff["original_affine"]), float), "RAS"
        else:
            # In the file's axis order, which the reversal below turns into array order.
            affine, world = np.diag([*spacing_mm[::-1], 1.0]), "none"
        return cls(shape, spacing_mm, affine[:, [2, 1, 0, 3]], world, _file_index(shape, affine, properties))

    @property
    def is_plane(self) -> bool:
        """Whether the image is two-dimensional."""
        return self.shape[0] == 1

    @property
    def direction(self) -> np.ndarray:
        """(3, 3), whose columns are the world directions of the array axes, as unit vectors."""
        columns = self.affine[:3, :3]
        return columns / np.linalg.norm(columns, axis=0)

    def to_world_mm(self, voxels: np.ndarray) -> np.ndarray:
        """World positions in mm of array positions.

        Args:
            voxels: (N, 3) positions in voxels, array order; integers are voxel centers.

        Returns:
            (N, 3) x, y, z in mm in the convention that `world` names.
        """
        return np.asarray(voxels, float) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_file_index(self, voxels: np.ndarray) -> np.ndarray:
        """Index (i, j, k) in the file of array positions, as viewers show it; (N, 3) to (N, 3)."""
        return np.asarray(voxels, float) @ self.file_index[:3, :3].T + self.file_index[:3, 3]

    def differences(self, other: "Geometry") -> list[str]:
        """Differences from `other` beyond rounding, in words; empty if both are on the same grid."""
        if self.shape != other.shape:
            return [f"size {self.shape} instead of {other.shape}"]
        found = []
        origin_tolerance, spacing_tolerance, direction_tolerance = TOLERANCE
        if not np.allclose(self.spacing_mm, other.spacing_mm, rtol=spacing_tolerance, atol=0):
            found.append(f"spacing {_short(self.spacing_mm)} mm instead of {_short(other.spacing_mm)} mm")
        if self.world != other.world:
            found.append(f"world convention {self.world} instead of {other.world}")
        if not np.allclose(self.direction, other.direction, rtol=0, atol=direction_tolerance):
            found.append(f"direction {_short(self.direction.T.ravel())} instead of {_short(other.direction.T.ravel())}")
        shift = np.abs(self.affine[:3, 3] - other.affine[:3, 3]).max()
        if shift > origin_tolerance * min(other.spacing_mm):
            found.append(f"origin {_short(self.affine[:3, 3])} mm instead of {_short(other.affine[:3, 3])} mm")
        return found


def refuse_other_grid(
    path: Path, grid: Geometry, reference_path: Path, reference: Geometry, reader: BaseReaderWriter
) -> None:
    """Raise an error if a file is not on the grid of another file.

    Args:
        path: the file.
        grid: its geometry.
        reference_path: the file whose grid it should have.
        reference: the geometry of that one.
        reader: the reader that read both.

    Raises:
        InputError: states the differences and the remedy.

    >>> grid = Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)})
    >>> refuse_other_grid(Path("a.tif"), grid, Path("b.tif"), grid, Tiff3DIO())
    """
    differences = grid.differences(reference)
    if not differences:
        return
    remedy = f"Resample {path.name} to that grid by nearest neighbor, or correct its header."
    spacing_files = [file.with_suffix(".json") for file in (path, reference_path)]
    lacking = [file for file in spacing_files if not file.is_file()]
    if isinstance(reader, Tiff3DIO) and len(lacking) == 1 and grid.shape == reference.shape:
        remedy = (
            f"{lacking[0]} does not exist, so nnU-Net assumes 1 mm along each axis of its image: write "
            '{"spacing": [...]} into it, in mm and in the order of the array.'
        )
    raise InputError(f"{path} does not lie on the grid of {reference_path}: {'; '.join(differences)}. {remedy}")


def in_file_order(array: np.ndarray, properties: dict) -> np.ndarray:
    """A view of an array with the axes of the file, if the reader reoriented the image to RAS.

    Args:
        array: (X, Y, Z) as returned by the reader.
        properties: the dictionary of the reader.
    """
    orientation = _original_orientation(properties)
    if orientation is None:
        return array
    turned = apply_orientation(array.T, ornt_transform(axcodes2ornt("RAS"), orientation))
    return turned.T


def _original_orientation(properties: dict) -> np.ndarray | None:
    """The orientation of the file's axes in nibabel's form; None if the reader did not reorient the image."""
    if "reoriented_affine" in properties.get("nibabel_stuff", {}):
        return io_orientation(properties["nibabel_stuff"]["original_affine"])
    if "original_orientation" in properties.get("sitk_stuff", {}):
        return axcodes2ornt(properties["sitk_stuff"]["original_orientation"])
    return None


def _file_index(shape: tuple[int, ...], affine: np.ndarray, properties: dict) -> np.ndarray:
    """See :class:`Geometry`; `affine` is that of the reader's image with its axes in file order."""
    orientation = _original_orientation(properties)
    if orientation is None:
        return REVERSED_AXES
    to_original = ornt_transform(io_orientation(affine), orientation)
    return np.rint(np.linalg.inv(inv_ornt_aff(to_original, shape[::-1]))) @ REVERSED_AXES


def _affine_of_sitk(stuff: dict) -> np.ndarray:
    """(4, 4) file index (x, y, z) -> RAS mm, from SimpleITK's LPS geometry in two or three dimensions."""
    dim = len(stuff["spacing"])
    affine = np.eye(4)
    affine[:dim, :dim] = np.reshape(stuff["direction"], (dim, dim)) * np.asarray(stuff["spacing"], float)
    affine[:dim, 3] = stuff["origin"]
    affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine


def _short(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
