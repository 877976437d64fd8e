"""Centers of mass of whole instances, stored beside their maps for patches that show only a part of them."""

from pathlib import Path

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import InstanceCenters, ids_beside
from nnunetv2_conflunet.preprocessing.instance_map import UNKNOWN
from nnunetv2_conflunet.utilities.files import atomic_path

# A folder of its own, so that no file can be taken for the map of a case.
FOLDER = "centers"


def centers_file(folder: Path, case: str) -> Path:
    """The file with the centers of a case, in the folder of instance maps."""
    return folder / FOLDER / f"{case}.npy"


def centers_of_map(instances: np.ndarray, ignored: np.ndarray | None, dim: int) -> np.ndarray:
    """Centers of mass of the known instances on the preprocessed grid that cannot extend into unlabeled voxels.

    Args:
        instances: (X, Y, Z) integer ids, background 0, unknown instances :data:`.UNKNOWN`.
        ignored: (X, Y, Z) bool, unlabeled voxels; or None.
        dim: number of spatial axes of the network; with 2, an instance has one center in each slice of the first axis.

    Returns:
        (N, 4) float64: id, and position in voxels; with `dim` 2, the first coordinate is the slice.

    >>> instances = np.zeros((2, 3, 5), int)
    >>> instances[0, 1, 1:4] = instances[1, 1:3, 4] = 7
    >>> centers_of_map(instances, None, dim=2).tolist()
    [[7.0, 0.0, 1.0, 2.0], [7.0, 1.0, 1.5, 4.0]]
    """
    if dim == 3:
        return _table(instances, ignored)
    slices = np.flatnonzero((instances > 0).any(axis=(1, 2)))
    tables = [np.insert(_table(instances[x], None if ignored is None else ignored[x]), 1, x, axis=1) for x in slices]
    return np.concatenate([np.empty((0, 4)), *tables])


def _table(instances: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    centers = InstanceCenters.of(instances).without(np.append(ids_beside(instances, ignored), UNKNOWN))
    return np.column_stack([centers.ids, centers.voxels])


def write_centers(table: np.ndarray, path: Path) -> None:
    """Write the result of :func:`centers_of_map`; the folder is created if needed."""
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        np.save(temporary, table)


def centers_in_crop(table: np.ndarray, lower: list[int], dim: int) -> InstanceCenters:
    """The centers of a case in voxels of a crop.

    Args:
        table: the result of :func:`centers_of_map`.
        lower: first voxel of the crop along each of the three axes, negative where the crop begins outside the image.
        dim: number of spatial axes of the network; with 2, only centers in the crop's slice count.

    Returns:
        All of them, also those outside the crop.

    >>> centers_in_crop(np.array([[7, 0, 1, 2], [7, 1, 1.5, 4]]), [1, 1, -2], dim=2)
    InstanceCenters(ids=array([7]), voxels=array([[0.5, 6. ]]))
    """
    if dim == 2:
        table = table[table[:, 1] == lower[0]]
    return InstanceCenters(table[:, 0].astype(np.int64), table[:, -dim:] - lower[-dim:])
