"""Merging: touching pieces of a component that the heads do not separate become one instance again.

A network that knows the centers of a large lesion only roughly gives it several pieces. Whether two touching pieces are
one lesion is judged by a logistic rule that is learned on a model's own validation, see :mod:`.tuning.merging`.
"""

from dataclasses import asdict, astuple, dataclass, fields, replace
from heapq import heappop, heappush
from math import isfinite
from typing import Any

import numpy as np
from scipy.special import expit

from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.pieces import Regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, in_scan_order
from nnunetv2_conflunet.utilities.errors import InputError

# Heights and distances that are divided by are at least this: far below a peak, far below a voxel in mm.
SMALLEST = 1e-3


@dataclass(frozen=True)
class MergeRule:
    """When two touching pieces are one lesion: expit(intercept + sum of weight times feature) is above the threshold.

    Attributes:
        threshold: in [0, 1]; 0 merges all that touch, as connected components do, 1 merges nothing.
        intercept: log odds where all features are 0.
        saddle: weight of the lowest heatmap on the line between the highest voxels of both pieces, as a share of the
            lower of the two heights.
        jump: weight of the mean distance between the votes (position plus offset) of touching voxels, as a share of
            the distance between the pieces' mean votes.
        vote_separation: weight of the distance between the mean votes in standard deviations of the votes.
        log_volume: weight of ln of the smaller piece's volume in mm3 (area in mm2 in a plane).
        peak_offset_mm: weight of the length of the offset at the highest voxel of the lower piece.
        contact: weight of the touching pairs of voxels, as a share of the smaller piece's voxels to the power
            (dim - 1) / dim.

    Raises:
        InputError: a value that is not finite, or a threshold outside [0, 1].

    >>> MergeRule(0.5, -1.0, 2.0, *[0.0] * 5).probability(np.array([[0.5, 0.0, 0.0, 0.0, 0.0, 0.0]]))
    array([0.5])
    """

    threshold: float
    intercept: float
    saddle: float
    jump: float
    vote_separation: float
    log_volume: float
    peak_offset_mm: float
    contact: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise InputError(f"merge: {name} is {value!r}; it must be a finite number.")
        if not 0 <= self.threshold <= 1:
            raise InputError(f"merge: threshold is {self.threshold!r}; it must lie in [0, 1].")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MergeRule":
        """A rule from what ``dataclasses.asdict`` gave.

        Raises:
            InputError: missing or unknown names, or values that are not possible.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or set(values) != set(known):
            raise InputError(f"merge is {values!r}; it must have exactly {', '.join(known)}.")
        return cls(**values)

    def probability(self, features: np.ndarray) -> np.ndarray:
        """(P, features) in the order of :data:`FEATURES` to (P,): that each pair is one lesion."""
        _, intercept, *weights = astuple(self)
        return expit(intercept + features @ np.array(weights))


FEATURES = tuple(field.name for field in fields(MergeRule))[2:]


class PieceGraph:
    """Pieces and which of them touch, with what the features are made of; merging changes it in place.

    Args:
        voxels: the foreground.
        piece: (N,) 0..K-1, the piece of each voxel.
        heads: heatmap and offsets.
        connectivity: neighbors that make voxels touch, of the image's dimension.
    """

    def __init__(self, voxels: Voxels, piece: np.ndarray, heads: HeadMaps, connectivity: int):
        self.heads, self.dim = heads, voxels.dim
        offsets_mm = heads.offsets_at(voxels.coordinates).astype(np.float64)
        votes_mm = voxels.coordinates * heads.image_spacing_mm + offsets_mm
        height = heads.heatmap_at(voxels.coordinates)
        n = int(piece.max(initial=-1)) + 1
        self.n_voxels = np.bincount(piece, minlength=n).astype(float)
        self.votes_mm = np.stack([np.bincount(piece, axis, n) for axis in votes_mm.T], axis=1)
        self.squared_mm2 = np.bincount(piece, (votes_mm**2).sum(axis=1), n)
        # The first voxel in C order of equally high ones, as the sort is stable.
        order = np.lexsort((-height, piece))
        highest = order[np.flatnonzero(np.diff(piece[order], prepend=-1))]
        self.height, self.peak = height[highest].astype(np.float64), voxels.coordinates[highest]
        self.peak_offset_mm = np.linalg.norm(offsets_mm[highest], axis=1)
        # Of each piece those that it touches: how many pairs of voxels do, and the sum of their votes' distances in mm.
        self.contacts: list[dict[int, np.ndarray]] = [{} for _ in range(n)]
        one, other = voxels.contacts(piece, connectivity)
        pair = np.minimum(piece[one], piece[other]) * n + np.maximum(piece[one], piece[other])
        touching, inverse, count = np.unique(pair, return_inverse=True, return_counts=True)
        jump_mm = np.bincount(inverse, np.linalg.norm(votes_mm[one] - votes_mm[other], axis=1), len(touching))
        for number, contact in zip(touching.tolist(), np.column_stack([count, jump_mm]), strict=True):
            a, b = divmod(number, n)
            self.contacts[a][b] = self.contacts[b][a] = contact

    def pairs(self, of: int | None = None) -> np.ndarray:
        """(P, 2) pieces that touch, of one piece or of all, the lower number first, ascending."""
        pieces = range(len(self.contacts)) if of is None else (of,)
        pairs = {(min(one, other), max(one, other)) for one in pieces for other in self.contacts[one]}
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    def features(self, pairs: np.ndarray) -> np.ndarray:
        """(P, 2) pairs that touch to (P, features), see :class:`MergeRule`."""
        one, other = pairs.T
        low = np.where(self.height[one] <= self.height[other], one, other)
        count, jump_mm = np.array([self.contacts[a][b] for a, b in pairs.tolist()]).reshape(-1, 2).T
        mean = self.votes_mm / self.n_voxels[:, None]
        spread_mm2 = np.maximum(self.squared_mm2 / self.n_voxels - (mean**2).sum(axis=1), 0)
        apart_mm = np.linalg.norm(mean[one] - mean[other], axis=1)
        smaller = np.minimum(self.n_voxels[one], self.n_voxels[other])
        half_voxel_mm = self.heads.image_spacing_mm.min() / 2
        return np.column_stack(
            [
                self._lowest_between(pairs) / np.maximum(self.height[low], SMALLEST),
                jump_mm / count / np.maximum(apart_mm, half_voxel_mm),
                apart_mm / np.sqrt(spread_mm2[one] + spread_mm2[other] + half_voxel_mm**2),
                np.log(smaller * self.heads.image_spacing_mm.prod()),
                self.peak_offset_mm[low],
                count / smaller ** ((self.dim - 1) / self.dim),
            ]
        )

    def merge(self, one: int, other: int) -> tuple[int, int]:
        """Merge two pieces that touch; return the one that stays, which has the higher peak, and the one that goes."""
        stays, goes = (one, other) if self.height[one] >= self.height[other] else (other, one)
        for values in (self.n_voxels, self.votes_mm, self.squared_mm2):
            values[stays] += values[goes]
        for neighbor, contact in self.contacts[goes].items():
            del self.contacts[neighbor][goes]
            if neighbor != stays:
                total = self.contacts[stays].get(neighbor, 0) + contact
                self.contacts[stays][neighbor] = self.contacts[neighbor][stays] = total
        self.contacts[goes] = {}
        return stays, goes

    def _lowest_between(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) the lowest heatmap at the voxels nearest to the line between the two highest ones."""
        first, last = self.peak[pairs[:, 0]], self.peak[pairs[:, 1]]
        n_steps = np.abs(last - first).max(axis=1)
        pair = np.repeat(np.arange(len(pairs)), n_steps + 1)
        step = np.arange(len(pair)) - np.repeat(np.cumsum(n_steps + 1) - n_steps - 1, n_steps + 1)
        share = (step / np.maximum(n_steps[pair], 1))[:, None]
        line = np.rint(first[pair] + share * (last - first)[pair]).astype(np.int64)
        lowest = np.full(len(pairs), np.inf)
        np.minimum.at(lowest, pair, self.heads.heatmap_at(line))
        return lowest


def merge_regions(voxels: Voxels, regions: Regions, heads: HeadMaps, rule: MergeRule, connectivity: int) -> Regions:
    """Merge the surest pair, judge its neighbors anew, and so on until no probability is above the threshold.

    Of equally sure pairs the one with the lowest numbers comes first. A merged instance has the center of the piece
    with the highest voxel.

    Args:
        voxels: the foreground.
        regions: of :func:`.pieces.connected_regions`.
        heads: heatmap and offsets.
        rule: when two pieces are one.
        connectivity: neighbors that make voxels touch, of the image's dimension.
    """
    if not len(voxels):
        return regions
    piece = regions.instance - 1
    graph = PieceGraph(voxels, piece, heads, connectivity)
    owner = np.arange(len(regions.center))
    # What was judged anew or merged stays in the queue and is passed over.
    now: dict[tuple[int, int], float] = {}
    queue: list[tuple[float, tuple[int, int]]] = []

    def judge(pairs: np.ndarray) -> None:
        for pair, probability in zip(pairs.tolist(), rule.probability(graph.features(pairs)).tolist(), strict=True):
            now[tuple(pair)] = probability
            heappush(queue, (-probability, tuple(pair)))

    judge(graph.pairs())
    while queue and -queue[0][0] > rule.threshold:
        unsure, (one, other) = heappop(queue)
        if other not in graph.contacts[one] or now[one, other] != -unsure:
            continue
        stays, goes = graph.merge(one, other)
        owner[owner == goes] = stays
        judge(graph.pairs(of=stays))
    instance = in_scan_order(owner[piece])
    return replace(regions, instance=instance, center=regions.center[owner[piece[first_voxels(instance)]]])
