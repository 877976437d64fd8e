"""The foreground of an image as a list of voxels, so that the cost grows with the lesions and not with the image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import cc3d
import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nnunetv2_conflunet.utilities.array_checks import Connectivity

# Which of SciPy's structures has that many neighbors.
STRUCTURE = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}


@dataclass(frozen=True, eq=False)
class Voxels:
    """Some voxels of an image, in the order in which the array is read (C order).

    Attributes:
        coordinates: (N, dim) array index of each voxel.

    >>> Voxels.of(np.array([[True, False, True, True]])).components(8)
    array([1, 2, 2])
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

    def components(self, connectivity: int, values: np.ndarray | None = None) -> np.ndarray:
        """Connected components of the voxels, or of the voxels that share a value.

        Args:
            connectivity: number of neighbors, of the image's dimension.
            values: (N,) integers, from 0 to 2**31 - 2. Default: all the same.

        Returns:
            (N,) 1..K, numbered in the order in which the components' first voxels come.
        """
        if not len(self):
            return np.zeros(0, np.int64)
        first, last = self.box
        inside = tuple((self.coordinates - first).T)
        # cc3d 4.1 runs out of provisional labels on bool arrays of isolated voxels; it does not on integers.
        array = np.zeros(last - first + 1, np.uint8 if values is None else np.int32)
        array[inside] = 1 if values is None else np.add(values, 1, dtype=np.int64)
        found = cc3d.connected_components(array, connectivity=cast(Connectivity, connectivity))[inside]
        # Not to be held while the voxels are sorted.
        del array, inside
        return in_scan_order(found)

    def neighbors(self, connectivity: int, some: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of neighboring voxels, one direction after another.

        Args:
            connectivity: number of neighbors, of the image's dimension.
            some: (M,) positions of the voxels to start from, which gives pairs of these in both orders. Default: all,
                every pair once.

        Yields:
            Two arrays of positions.
        """
        if not len(self):
            return
        steps = np.argwhere(generate_binary_structure(self.dim, STRUCTURE[connectivity])) - 1
        steps = steps[steps.any(axis=1)]
        if some is None:
            # The other half leads back.
            some, steps = np.arange(len(self)), steps[: len(steps) // 2]
        first, last = self.box
        # A margin, so that no step leads around an edge. Ascending, as voxels are in C order.
        stride = np.append(np.cumprod((last - first + 3)[:0:-1])[::-1], 1)
        flat = (self.coordinates - first + 1) @ stride
        for step in steps @ stride:
            at = np.minimum(np.searchsorted(flat, flat[some] + step), len(flat) - 1)
            found = flat[at] == flat[some] + step
            yield some[found], at[found]

    def contacts(
        self, labels: np.ndarray, connectivity: int, some: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of :meth:`neighbors` whose labels differ, as two arrays of positions; `labels` is (N,)."""
        pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for one, other in self.neighbors(connectivity, some):
            apart = labels[one] != labels[other]
            pairs.append((one[apart], other[apart]))
        one, other = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return one, other


@dataclass(frozen=True)
class InstanceCenters:
    """Where instances have their center of mass.

    Attributes:
        ids: (N,) positive ids.
        voxels: (N, dim) float64 positions in voxels of the array they belong to; may lie outside it.
    """

    ids: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, instances: np.ndarray) -> "InstanceCenters":
        """Centers of mass of the instances in an array of ids, (X, Y[, Z]) integers, background 0 or below."""
        index, ids = lesion_voxels(instances)
        present, member = np.unique(ids, return_inverse=True)
        return cls(present, centers_of_mass(index, member))

    def without(self, ids: np.ndarray) -> "InstanceCenters":
        """Only the instances whose ids are not among the given ones."""
        kept = ~np.isin(self.ids, ids)
        return InstanceCenters(self.ids[kept], self.voxels[kept])

    def without_cut(self, instances: np.ndarray, ignored: np.ndarray | None = None) -> "InstanceCenters":
        """Only the instances that touch neither the border of the array nor `ignored`, and so are known to be whole.

        Args:
            instances: the array of ids.
            ignored: bool of the same shape, voxels that nobody labeled; or None.
        """
        cut = [np.take(instances, (0, -1), axis=axis).ravel() for axis in range(instances.ndim)]
        return self.without(np.concatenate([*cut, ids_beside(instances, ignored)]))

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Positions in `ids` of the given ones, which must be there; (M,) to (M,)."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, ids, sorter=order)]


def ids_beside(instances: np.ndarray, ignored: np.ndarray | None) -> np.ndarray:
    """Ids, with repetitions, of the voxels in `ignored` or face to face with it; none if it is None."""
    if ignored is None or not ignored.any():
        return np.empty(0, instances.dtype)
    return instances[binary_dilation(ignored)]


def lesion_voxels(instances: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Index and int64 id of every voxel above 0, in C order.

    One pass over the array; the rest costs lesion voxels only.
    """
    instances = np.ascontiguousarray(instances)
    flat = np.flatnonzero(instances.ravel() > 0)
    return np.unravel_index(flat, instances.shape), instances.ravel()[flat].astype(np.int64)


def centers_of_mass(index: Iterable[np.ndarray], member: np.ndarray) -> np.ndarray:
    """(K, dim) float64, the mean index of the voxels of each group.

    Args:
        index: (N,) index of each voxel, one array per axis.
        member: (N,) group 0..K-1 of each voxel; none is empty.

    >>> centers_of_mass([np.array([0, 0, 4]), np.array([2, 3, 5])], np.array([0, 0, 1])).tolist()
    [[0.0, 2.5], [4.0, 5.0]]
    """
    n_voxels = np.bincount(member)
    return np.stack([np.bincount(member, along_axis) for along_axis in index], axis=1) / n_voxels[:, None]


def touching_pairs(voxels: Voxels, labels: np.ndarray, connectivity: int) -> np.ndarray:
    """(T, 2) the labels that touch, each pair once, the lower first, ascending; `labels` is (N,)."""
    one, other = voxels.contacts(labels, connectivity)
    return np.unique(np.sort(np.stack([labels[one], labels[other]], axis=1), axis=1), axis=0)


def joined_by_pairs(n: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n,) number of the group of each of n things; the (P,) pairs are in one, directly or through others."""
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def in_scan_order(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered 1..K in the order in which they first occur; (N,) to (N,)."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return rank[inverse]


def first_voxels(labels: np.ndarray) -> np.ndarray:
    """(K,) position of the first voxel of each label, for labels 1..K that are numbered in the order of these."""
    return np.flatnonzero(np.diff(np.maximum.accumulate(labels), prepend=0))


def line_ends(coordinates: np.ndarray) -> np.ndarray:
    """The ends of every line of voxels along the last axis; no others can be corners of a hull. (N, dim) in C order."""
    step = (coordinates[1:, :-1] != coordinates[:-1, :-1]).any(axis=1)
    return coordinates[np.append(True, step) | np.append(step, True)]


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
