"""The foreground of an image as a list of voxels, so that the cost grows with the lesions and not with the image."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
from scipy.ndimage import generate_binary_structure

# Which of SciPy's structures has that many neighbours.
STRUCTURE = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}


@dataclass(frozen=True, eq=False)
class Voxels:
    """Some voxels of an image, in the order in which the array is read (C order).

    Attributes:
        coordinates: (N, dim) array index of each voxel.
    """

    coordinates: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "Voxels":
        """The voxels where `mask`, an array of bool, is True."""
        # One axis after the other in memory, since they are used one by one.
        return cls(np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape)).T)

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return self.coordinates.shape[1]

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last index along every axis, both inclusive. Not defined without voxels."""
        return self.coordinates.min(axis=0), self.coordinates.max(axis=0)

    def crop(self, values: np.ndarray, margin: int | np.ndarray = 0) -> tuple[np.ndarray, np.ndarray]:
        """Lay `values` into an array as large as the bounding box.

        Args:
            values: (N,) one value a voxel.
            margin: voxels of value 0 on each side, one number or one an axis.

        Returns:
            The array, and the (N, dim) index of each voxel in it.
        """
        first, last = self.box
        local = self.coordinates - first + margin
        array = np.zeros(last - first + 1 + 2 * np.asarray(margin), values.dtype)
        array[tuple(local.T)] = values
        return array, local

    def components(self, connectivity: int, values: np.ndarray | None = None) -> np.ndarray:
        """Connected components of the voxels, or of the voxels that share a value.

        Args:
            connectivity: number of neighbours, of the image's dimension.
            values: (N,) integers, none negative. Default: all the same.

        Returns:
            (N,) 1..K, numbered in the order in which the components' first voxels come.
        """
        if not len(self):
            return np.zeros(0, np.int64)
        # cc3d 4.1 runs out of provisional labels on bool arrays of isolated voxels; it does not on integers.
        array, local = self.crop(np.ones(len(self), np.uint8) if values is None else values.astype(np.int32) + 1)
        return in_scan_order(cc3d.connected_components(array, connectivity=connectivity)[tuple(local.T)])

    def neighbours(self, some: np.ndarray, shifts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each shift the voxels from which it leads to another one of the voxels, and those others.

        Args:
            some: (M,) positions of the voxels to start from.
            shifts: (K, dim) steps.

        Yields:
            Two arrays of positions, among `some` and where the shift leads.
        """
        first, last = self.box
        # A margin as wide as the steps, so that none leads around an edge. Ascending, as voxels are in C order.
        margin = np.abs(shifts).max(axis=0)
        shape = last - first + 1 + 2 * margin
        stride = np.append(np.cumprod(shape[:0:-1])[::-1], 1)
        flat = (self.coordinates - first + margin) @ stride
        for step in shifts @ stride:
            at = np.minimum(np.searchsorted(flat, flat[some] + step), len(flat) - 1)
            found = flat[at] == flat[some] + step
            yield some[found], at[found]


def in_scan_order(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered 1..K in the order in which they first occur; (N,) to (N,)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return rank[inverse]


def first_voxels(labels: np.ndarray) -> np.ndarray:
    """(K,) position of the first voxel of each label, for labels 1..K that are numbered in the order of these."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(labels), prepend=0))


def neighbour_shifts(connectivity: int, dim: int) -> np.ndarray:
    """(connectivity, dim) steps from a voxel to its neighbours."""
    shifts = np.argwhere(generate_binary_structure(dim, STRUCTURE[connectivity])) - 1
    return shifts[shifts.any(axis=1)]


def groups(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each label with the positions where it stands, labels ascending, positions ascending."""
    order, starts = _sorted_groups(labels)
    for members in np.split(order, starts[1:]) if len(order) else ():
        yield int(labels[members[0]]), members


def sizes_and_boxes(
    coordinates: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measure every label.

    Args:
        coordinates: (N, dim) index of each voxel.
        labels: (N,) any integers.

    Returns:
        ids: (K,) the labels, ascending.
        n_voxels: (K,).
        first, last: (K, dim) corners of the bounding box, both inclusive.
    """
    order, starts = _sorted_groups(labels)
    if not len(order):
        none = np.zeros((0, coordinates.shape[1]), np.int64)
        return np.zeros(0, np.int64), np.zeros(0, np.int64), none, none
    ordered = coordinates[order]
    n_voxels = np.diff(np.append(starts, len(order)))
    return labels[order[starts]], n_voxels, np.minimum.reduceat(ordered, starts), np.maximum.reduceat(ordered, starts)


def _sorted_groups(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(labels, kind="stable")
    if not len(order):
        return order, order
    ordered = labels[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
