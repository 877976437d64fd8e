"""From voxels and their nearest centers to connected instances that cover the whole foreground."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, in_scan_order, neighbour_shifts


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which center each foreground voxel goes to.

    Attributes:
        center: (N,) 1..K, 0 where no center is in question.
        distance_mm: (N,) from the voxel to that center (not from where the voxel points).
        scores: (K,) height of each center's peak, NaN where a method has no such thing.
    """

    center: np.ndarray
    distance_mm: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Regions:
    """Connected instances.

    Attributes:
        instance: (N,) 1..M, numbered in the order in which their first voxels come.
        center: (M,) the center of each instance, 0 for one without.
        n_reattached_pieces: pieces that were cut off and joined another instance.
        n_reattached_voxels: their voxels.
    """

    instance: np.ndarray
    center: np.ndarray
    n_reattached_pieces: int
    n_reattached_voxels: int


def connected_regions(
    voxels: Voxels, assignment: Assignment, connectivity: int, component: np.ndarray | None = None
) -> Regions:
    """Turn an assignment into connected instances; every voxel belongs to one.

    1. A center claims one connected component of the foreground: the one with the voxel nearest to the center among
       the voxels assigned to it. Its instance is its largest connected piece there (of equally large ones the piece
       nearest to the center, then the first in C order).
    2. A component that no center claims is one instance of its own.
    3. Any other piece joins the instance that it shares most pairs of neighbouring voxels with (of equal ones that
       with the higher peak). Pieces that touch no instance yet wait for their neighbours to join one.

    Args:
        voxels: the foreground.
        assignment: the center of each voxel.
        connectivity: number of neighbours, of the image's dimension.
        component: (N,) what ``voxels.components(connectivity)`` gave, where it is known.
    """
    if not len(voxels):
        return Regions(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0)
    component = voxels.components(connectivity) if component is None else component
    # Without centers there is nothing to split.
    n_centers = len(assignment.scores)
    piece = voxels.components(connectivity, assignment.center) if n_centers else component
    first_voxel = first_voxels(piece)
    center, home = assignment.center[first_voxel], component[first_voxel]
    piece = piece - 1
    size = np.bincount(piece)
    distance_mm = np.full(len(size), np.inf)
    np.minimum.at(distance_mm, piece, assignment.distance_mm)

    main = _main_pieces(center, home, size, distance_mm)
    claimed = np.zeros(component.max() + 1, bool)
    claimed[home[main]] = True
    # 1..K for the instances of centers, higher for components of their own, 0 for pieces that were cut off.
    owner = np.where(claimed[home], 0, n_centers + home)
    owner[main] = center[main]
    cut_off = owner == 0
    if cut_off.any():
        _join(owner, *_contacts(voxels, piece, cut_off, connectivity))

    # Pieces are in the order of their first voxels, and so are the instances that they make.
    instance = in_scan_order(owner)
    owner_of_instance = owner[first_voxels(instance)]
    center_of_instance = np.where(owner_of_instance > n_centers, 0, owner_of_instance)
    return Regions(instance[piece], center_of_instance, int(cut_off.sum()), int(size[cut_off].sum()))


def _main_pieces(center: np.ndarray, home: np.ndarray, size: np.ndarray, distance_mm: np.ndarray) -> np.ndarray:
    """The piece of each center that is its instance."""
    number = np.arange(len(center))
    nearest = _first_of_each(center, np.lexsort((number, distance_mm, center)))
    claimed = np.zeros(center.max() + 1, np.int64)
    claimed[center[nearest]] = home[nearest]
    at_home = np.flatnonzero((center > 0) & (home == claimed[center]))
    order = np.lexsort((at_home, distance_mm[at_home], -size[at_home], center[at_home]))
    return _first_of_each(center, at_home[order])


def _contacts(
    voxels: Voxels, piece: np.ndarray, cut_off: np.ndarray, connectivity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a piece that was cut off and a piece it touches, and how many pairs of voxels touch."""
    n, keys, counts = len(cut_off), [], []
    shifts = neighbour_shifts(connectivity, voxels.dim)
    for voxel, neighbour in voxels.neighbours(np.flatnonzero(cut_off[piece]), shifts):
        mine, other = piece[voxel], piece[neighbour]
        key, count = np.unique((mine * n + other)[mine != other], return_counts=True)
        keys.append(key)
        counts.append(count)
    key, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    return key // n, key % n, np.bincount(inverse, np.concatenate(counts), len(key)).astype(np.int64)


def _join(owner: np.ndarray, loose: np.ndarray, neighbour: np.ndarray, count: np.ndarray) -> None:
    """Give every piece of owner 0 an owner, in place; all pieces of a round see the owners of the round before."""
    n_owners = owner.max() + 1
    while True:
        possible = (owner[loose] == 0) & (owner[neighbour] > 0)
        if not possible.any():
            return
        key, inverse = np.unique(loose[possible] * n_owners + owner[neighbour[possible]], return_inverse=True)
        total = np.bincount(inverse, count[possible])
        piece, candidate = key // n_owners, key % n_owners
        chosen = _first_of_each(piece, np.lexsort((candidate, -total, piece)))
        owner[piece[chosen]] = candidate[chosen]


def _first_of_each(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The members of `order` (sorted by group) that come first in their group."""
    ordered = group[order]
    return order[np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))] if len(order) else order
