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
from nnunetv2_conflunet.postprocessing.piece_graph import PieceGraph
from nnunetv2_conflunet.postprocessing.pieces import Regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, in_scan_order
from nnunetv2_conflunet.utilities.errors import InputError


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
        neck: weight of how deep the deepest touching voxels lie in the lesion, as a share of the lower of the depths of
            the two pieces' deepest voxels; 0 in rules of an earlier version.

    Raises:
        InputError: a value that is not finite, or a threshold outside [0, 1].

    >>> MergeRule(0.5, -1.0, 2.0, *[0.0] * 6).probability(np.array([[0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]))
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
    neck: float = 0.0

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
        if not isinstance(values, dict) or set(values) | {"neck"} != set(known):
            raise InputError(f"merge is {values!r}; it must have exactly {', '.join(known)}.")
        return cls(**values)

    def probability(self, features: np.ndarray) -> np.ndarray:
        """(P, features) in the order of :data:`FEATURES` to (P,): that each pair is one lesion, in (0, 1]."""
        _, intercept, *weights = astuple(self)
        # Above 0 however unlikely, so that a threshold of 0 merges all.
        return np.maximum(expit(intercept + features @ np.array(weights)), np.finfo(float).tiny)


FEATURES = tuple(field.name for field in fields(MergeRule))[2:]
# For a model that has learned no rule of its own: from the validation cases of five networks and three cohorts, each
# cohort with the same weight, and of features without a unit of length only (docs/experiments.md).
DEFAULT_RULE = MergeRule(
    threshold=0.4,
    intercept=-1.048,
    saddle=2.769,
    jump=-6.691,
    vote_separation=0.040,
    log_volume=0.0,
    peak_offset_mm=0.0,
    contact=0.149,
)


def merge_pieces(graph: PieceGraph, rule: MergeRule) -> np.ndarray:
    """Merge the surest pair, judge its neighbors anew, and so on until no probability is above the threshold.

    Of equally sure pairs the one with the lowest numbers comes first.

    Args:
        graph: of the pieces; changed in place.
        rule: when two pieces are one.

    Returns:
        (K,) for each piece the one that it belongs to, that with the highest voxel of those that were merged.
    """
    owner = np.arange(len(graph.n_voxels))
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
    return owner


def merge_regions(voxels: Voxels, regions: Regions, heads: HeadMaps, rule: MergeRule, connectivity: int) -> Regions:
    """The regions with pieces merged by :func:`merge_pieces`.

    A merged instance has the center of the piece with the highest voxel.

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
    owner = merge_pieces(PieceGraph.of(voxels, piece, heads, connectivity, rule.neck != 0), rule)
    instance = in_scan_order(owner[piece])
    return replace(regions, instance=instance, center=regions.center[owner[piece[first_voxels(instance)]]])
