"""The patients of the open MS database: consensus masks, and FLAIR volumes of some patients."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunetv2_conflunet.imageio import read_instances
from nnunetv2_conflunet.simulation.image_grid import DIRECTION, Grid, triple
from nnunetv2_conflunet.utilities.errors import InputError

SOURCE = (
    "Lesjak Z. et al., A novel public MR image dataset of multiple sclerosis patients with lesion segmentations based "
    "on multi-rater consensus, Neuroinformatics 2017, doi:10.1007/s12021-017-9348-7, CC-BY"
)
ENDING = ".nii.gz"
# The patients whose masks are used, out of 30 in the database.
PATIENTS = tuple(
    f"patient{number:02d}"
    for number in (1, 3, 4, 6, 7, 8, 9, 10, 12, 13, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 27, 28, 30)
)
# A patient with few lesions, and one with many confluent lesions.
FLAIR_PATIENTS = "patient07", "patient19"


@dataclass(frozen=True)
class OpenMS:
    """A folder with ``gold/<patient>.nii.gz`` (masks) and ``flair/<patient>.nii.gz``, all on one grid in MNI space.

    Source: Lesjak et al. 2017, doi:10.1007/s12021-017-9348-7, license CC-BY.

    Attributes:
        folder: the folder.
    """

    folder: Path

    @classmethod
    def at(cls, folder: str | os.PathLike) -> "OpenMS":
        """Open the folder.

        Raises:
            InputError: the folder or one of its files is missing.
        """
        data = cls(Path(folder))
        if not data.folder.is_dir():
            raise InputError(f"{data.folder} is not a folder; give the one with gold/ and flair/ of the database.")
        for kind, patients in (("gold", PATIENTS), ("flair", FLAIR_PATIENTS)):
            for patient in patients:
                data.path(kind, patient)
        return data

    def path(self, kind: str, patient: str) -> Path:
        """The file of a patient; `kind` is ``gold`` or ``flair``.

        Raises:
            InputError: it is missing.
        """
        path = self.folder / kind / f"{patient}{ENDING}"
        if not path.is_file():
            raise InputError(f"{path} is missing.")
        return path

    def mask(self, patient: str) -> tuple[np.ndarray, Grid]:
        """A patient's lesions, (Z, Y, X) bool, and their grid; see :func:`read_flair` for the axes and errors."""
        instances, grid = read_map(self.path("gold", patient))
        return instances > 0, grid

    def flair(self, patient: str) -> tuple[np.ndarray, Grid]:
        """A patient's FLAIR and its grid, see :func:`read_flair`."""
        return read_flair(self.path("flair", patient))


def read_flair(path: Path) -> tuple[np.ndarray, Grid]:
    """A FLAIR, (Z, Y, X) float32, with z to the top, y to the front, x to the right; and its grid.

    Raises:
        InputError: the file cannot be read, or is not on a 1 mm grid in MNI space.
    """
    try:
        images, properties = SimpleITKIOWithReorient().read_images([str(path)])
    except RuntimeError as error:
        raise InputError(f"{path} cannot be read as an image.") from error
    return images[0], _grid(path, images[0], properties["sitk_stuff"])


def read_map(path: Path) -> tuple[np.ndarray, Grid]:
    """A mask or an instance map, (Z, Y, X) integers, and its grid; see :func:`read_flair` for the axes and errors."""
    instances, properties = read_instances(path, SimpleITKIOWithReorient())
    return instances, _grid(path, instances, properties["sitk_stuff"])


def _grid(path: Path, array: np.ndarray, stuff: dict) -> Grid:
    x, y, z = stuff["origin"]
    # SimpleITK's world is LPS.
    grid = Grid(array.shape, triple(stuff["spacing"][::-1]), (z, -y, -x))
    if not np.allclose(grid.spacing_mm, 1) or not np.allclose(stuff["direction"], DIRECTION):
        raise InputError(f"{path} has spacing {grid.spacing_mm} mm or oblique axes; 1 mm in MNI space is needed.")
    return grid
