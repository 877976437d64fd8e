"""From voxels and centers to connected instances that cover the whole foreground."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, in_scan_order
from nnunetv2_conflunet.utilities.array_checks import check_probability

# Sites whose distances differ by less are equally near: above the rounding of float64 positions in mm, far below a
# voxel.
TIE_MM = 1e-6
# Sites to look at first: seldom are more equally near.
FIRST_SITES = 4
# The quantile of an instance's probability that ranks instances best (docs/metrics.md).
CONFIDENCE_QUANTILE = 0.9


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

    def painted(self, voxels: Voxels, kept: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The int32 map of the instances that stay, and which of all do, (M,) bool.

        Args:
            voxels: those of all instances.
            kept: (N,) bool, the voxels of the instances that stay.
            shape: of the map.
        """
        # Whole instances go, so that the others stay in the order of their first voxels.
        stays = kept[first_voxels(self.instance)]
        instances = np.zeros(shape, np.int32)
        flat = np.ravel_multi_index(tuple(voxels.coordinates.T), shape)
        instances.reshape(-1)[flat[kept]] = np.cumsum(stays)[self.instance[kept] - 1]
        return instances, stays


@dataclass(frozen=True, eq=False)
class Instantiation:
    """The instances of one image.

    Attributes:
        instances: int32, shape of the foreground; ids 1..N in the order in which the instances' first voxels come when
            the array is read in C order (last axis fastest), 0 is background.
        center_score: (N,) float32, of instance i at i - 1: the heatmap at the peak that claimed it, NaN for an instance
            without such a peak.
        confidence: (N,) float32, see :func:`instance_confidence`; NaN without a probability.
        report: what happened: `method`, `n_voxels_foreground`, `n_centers` (found, with and without voxels),
            `n_instances`, `n_instances_without_center`, `n_pieces_merged`, `n_pieces_reattached`,
            `n_voxels_reattached`, `n_instances_removed`, `n_voxels_removed` and `removed_mm3` (`removed_mm2` in a
            plane), these three by the size filter, and with `min_confidence` `n_instances_below_confidence`.
            `n_instances` and `n_instances_without_center` count what is left.

    >>> unknown = np.array([np.nan], np.float32)
    >>> Instantiation(np.array([0, 1, 1], np.int32), unknown, unknown, {"n_instances": 1}).instances.max()
    np.int32(1)
    """

    instances: np.ndarray
    center_score: np.ndarray
    confidence: np.ndarray
    report: dict[str, Any]


def instance_confidence(instance: np.ndarray, probability: np.ndarray | None) -> np.ndarray:
    """How sure an instance is, for ranking, by every method alike: the 90th percentile of its probability.

    NumPy's percentile, linear; not calibrated. `docs/metrics.md` says how it was chosen.

    Args:
        instance: (V,) 1..M, the instance of each voxel; every one has a voxel.
        probability: (V,) of the foreground at each voxel; None makes every confidence NaN.

    Returns:
        (M,) float32 in [0, 1].

    Raises:
        InputError: NaN, or values outside [0, 1].

    >>> instance_confidence(np.array([1, 1, 2]), np.array([0.5, 1.0, 0.75]))
    array([0.95, 0.75], dtype=float32)
    """
    size = np.bincount(instance, minlength=1)[1:]
    if probability is None:
        return np.full(len(size), np.nan, np.float32)
    # As an image of one row.
    probability = check_probability(probability[None])[0]
    ordered = probability[np.lexsort((probability, instance))]
    position = (size - 1) * CONFIDENCE_QUANTILE
    below = position.astype(np.int64)
    lower = np.cumsum(size) - size + below
    upper = np.minimum(lower + 1, np.cumsum(size) - 1)
    return (ordered[lower] + (position - below) * (ordered[upper] - ordered[lower])).astype(np.float32)


def nearest_label(points_mm: np.ndarray, sites_mm: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label of the site nearest to each point; among equally near sites the lowest label.

    Args:
        points_mm: (N, dim) positions in mm.
        sites_mm: (K, dim) positions in mm, K >= 1.
        labels: (K,) integers.

    Returns:
        (N,) labels and (N,) distances in mm.

    >>> nearest_label(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([7, 5]))
    (array([5]), array([1.]))
    """
    # Balancing takes longer than it saves.
    tree = cKDTree(sites_mm, balanced_tree=False, compact_nodes=False)
    found, nearest_mm = np.zeros(len(points_mm), labels.dtype), np.zeros(len(points_mm))
    open_points, k = np.arange(len(points_mm)), min(FIRST_SITES, len(sites_mm))
    while len(open_points):
        distance, site = tree.query(points_mm[open_points], k=np.arange(1, k + 1))
        tied = distance <= distance[:, :1] + TIE_MM
        found[open_points] = np.where(tied, labels[site], np.iinfo(labels.dtype).max).min(axis=1)
        nearest_mm[open_points] = distance[:, 0]
        # Where even the last of the k sites is tied there may be more.
        open_points = open_points[tied[:, -1] & (k < len(sites_mm))]
        k = min(4 * k, len(sites_mm))
    return found, nearest_mm


def connected_regions(
    voxels: Voxels, assignment: Assignment, connectivity: int, component: np.ndarray | None = None
) -> Regions:
    """Turn an assignment into connected instances; every voxel belongs to one.

    1. A center claims one connected component of the foreground: the one with the voxel nearest to the center among
       the voxels assigned to it. Its instance is its largest connected piece there (of equally large ones the piece
       nearest to the center, then the first in C order).
    2. A component that no center claims is one instance of its own.
    3. Any other piece joins the instance that it shares most pairs of neighboring voxels with (of equal ones that
       with the higher peak). Pieces that touch no instance yet wait for their neighbors to join one.

    Args:
        voxels: the foreground.
        assignment: the center of each voxel.
        connectivity: number of neighbors, of the image's dimension.
        component: (N,) what ``voxels.components(connectivity)`` gave, where it is known.

    >>> voxels = Voxels.of(np.array([[True, True, False, True]]))
    >>> connected_regions(voxels, Assignment(np.array([1, 2, 2]), np.zeros(3), np.ones(2)), 4).instance
    array([1, 2, 3])
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
        one, other = voxels.contacts(piece, connectivity, np.flatnonzero(cut_off[piece]))
        touching, count = np.unique(piece[one] * len(owner) + piece[other], return_counts=True)
        _join(owner, touching // len(owner), touching % len(owner), count)

    # Pieces are in the order of their first voxels, and so are the instances that they make.
    instance = in_scan_order(owner)
    owner_of_instance = owner[first_voxels(instance)]
    center_of_instance = np.where(owner_of_instance > n_centers, 0, owner_of_instance)
    return Regions(instance[piece], center_of_instance, int(cut_off.sum()), int(size[cut_off].sum()))


def _main_pieces(center: np.ndarray, home: np.ndarray, size: np.ndarray, distance_mm: np.ndarray) -> np.ndarray:
    """The piece of each center that is its instance."""
    nearest = _first_of_each(center, np.lexsort((distance_mm, center)))
    claimed = np.zeros(center.max() + 1, np.int64)
    claimed[center[nearest]] = home[nearest]
    at_home = np.flatnonzero((center > 0) & (home == claimed[center]))
    order = np.lexsort((distance_mm[at_home], -size[at_home], center[at_home]))
    return _first_of_each(center, at_home[order])


def _join(owner: np.ndarray, loose: np.ndarray, neighbor: np.ndarray, count: np.ndarray) -> None:
    """Give every piece of owner 0 an owner, in place; all pieces of a round see the owners of the round before."""
    n_owners = owner.max() + 1
    while True:
        possible = (owner[loose] == 0) & (owner[neighbor] > 0)
        if not possible.any():
            return
        key, inverse = np.unique(loose[possible] * n_owners + owner[neighbor[possible]], return_inverse=True)
        total = np.bincount(inverse, count[possible])
        piece, candidate = key // n_owners, key % n_owners
        chosen = _first_of_each(piece, np.lexsort((candidate, -total, piece)))
        owner[piece[chosen]] = candidate[chosen]


def _first_of_each(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The members of `order` (sorted by group) that come first in their group."""
    ordered = group[order]
    return order[np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))] if len(order) else order
