"""Pieces of the foreground that touch, and what tells whether two of them are one lesion."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from nnunetv2_conflunet.postprocessing.baselines.depth import DepthBox
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.voxels import Voxels, groups, joined_by_pairs

# Heights and distances that are divided by are at least this: far below a peak, far below a voxel in mm.
SMALLEST = 1e-3


@dataclass(frozen=True, eq=False)
class PieceMeasures:
    """Measures of K pieces: those of a union of pieces follow from theirs.

    Attributes:
        spacing_mm: (dim,) voxel size of the image.
        n_voxels: (K,) float64, of each piece.
        votes_mm: (K, dim) sum of the votes of its voxels, position plus offset.
        squared_mm2: (K,) sum of their squared lengths.
        height: (K,) the heatmap at its highest voxel.
        peak_offset_mm: (K,) length of the offset there.
        depth_mm: (K,) distance of its deepest voxel from the background.
    """

    spacing_mm: np.ndarray
    n_voxels: np.ndarray
    votes_mm: np.ndarray
    squared_mm2: np.ndarray
    height: np.ndarray
    peak_offset_mm: np.ndarray
    depth_mm: np.ndarray

    def measures(self) -> dict[str, np.ndarray]:
        """Copies of these arrays by name."""
        return {field.name: getattr(self, field.name).copy() for field in fields(PieceMeasures)}


@dataclass(frozen=True, eq=False)
class PieceGraph(PieceMeasures):
    """Pieces and which of them touch, with what the features are made of; merging changes its arrays in place.

    Attributes:
        contacts: of each piece those that it touches: how many pairs of voxels do, the sum of their votes' distances in
            mm, and the distance from the background of the deepest pair's voxel that is less deep, in mm.
        lowest_between: (P, 2) pairs to (P,): the lowest heatmap at the voxels nearest to the line between the two
            highest ones.
    """

    contacts: list[dict[int, np.ndarray]]
    lowest_between: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(
        cls, voxels: Voxels, piece: np.ndarray, heads: HeadMaps, connectivity: int, with_necks: bool = True
    ) -> "PieceGraph":
        """The pieces of an image.

        Args:
            voxels: the foreground.
            piece: (N,) 0..K-1, the piece of each voxel.
            heads: heatmap and offsets.
            connectivity: neighbors that make voxels touch, of the image's dimension.
            with_necks: measure depths; False for a rule that gives necks no weight, for which all are 0.
        """
        offsets_mm = heads.offsets_at(voxels.coordinates).astype(np.float64)
        votes_mm = voxels.coordinates * heads.image_spacing_mm + offsets_mm
        height = heads.heatmap_at(voxels.coordinates)
        n = int(piece.max(initial=-1)) + 1
        # The first voxel in C order of equally high ones, as the sort is stable.
        order = np.lexsort((-height, piece))
        highest = order[np.flatnonzero(np.diff(piece[order], prepend=-1))]
        one, other = voxels.contacts(piece, connectivity)
        pair = np.minimum(piece[one], piece[other]) * n + np.maximum(piece[one], piece[other])
        touching, inverse, count = np.unique(pair, return_inverse=True, return_counts=True)
        jump_mm = np.bincount(inverse, np.linalg.norm(votes_mm[one] - votes_mm[other], axis=1), len(touching))
        pairs = np.stack(np.divmod(touching, n), axis=1)
        depth_mm, neck_mm = np.full(n, SMALLEST), np.zeros(len(touching))
        if with_necks:
            voxel_depth_mm = depths_mm(voxels, joined_by_pairs(n, *pairs.T)[piece], piece, heads.image_spacing_mm)
            np.maximum.at(depth_mm, piece, voxel_depth_mm)
            np.maximum.at(neck_mm, inverse, np.minimum(voxel_depth_mm[one], voxel_depth_mm[other]))
        return cls(
            spacing_mm=heads.image_spacing_mm,
            n_voxels=np.bincount(piece, minlength=n).astype(float),
            votes_mm=np.stack([np.bincount(piece, axis, n) for axis in votes_mm.T], axis=1),
            squared_mm2=np.bincount(piece, (votes_mm**2).sum(axis=1), n),
            height=height[highest].astype(np.float64),
            peak_offset_mm=np.linalg.norm(offsets_mm[highest], axis=1),
            depth_mm=depth_mm,
            contacts=contacts_of(n, pairs, np.column_stack([count, jump_mm, neck_mm])),
            lowest_between=partial(_lowest_between, heads, voxels.coordinates[highest]),
        )

    def pairs(self, of: int | None = None) -> np.ndarray:
        """(P, 2) pieces that touch, of one piece or of all, the lower number first, ascending."""
        pieces = range(len(self.contacts)) if of is None else (of,)
        pairs = {(min(one, other), max(one, other)) for one in pieces for other in self.contacts[one]}
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    def features(self, pairs: np.ndarray) -> np.ndarray:
        """(P, 2) pairs that touch to (P, features), see :class:`.MergeRule`."""
        one, other = pairs.T
        low = np.where(self.height[one] <= self.height[other], one, other)
        count, jump_mm, neck_mm = np.array([self.contacts[a][b] for a, b in pairs.tolist()]).reshape(-1, 3).T
        mean = self.votes_mm / self.n_voxels[:, None]
        spread_mm2 = np.maximum(self.squared_mm2 / self.n_voxels - (mean**2).sum(axis=1), 0)
        apart_mm = np.linalg.norm(mean[one] - mean[other], axis=1)
        smaller = np.minimum(self.n_voxels[one], self.n_voxels[other])
        half_voxel_mm = self.spacing_mm.min() / 2
        return np.column_stack(
            [
                self.lowest_between(pairs) / np.maximum(self.height[low], SMALLEST),
                jump_mm / count / np.maximum(apart_mm, half_voxel_mm),
                apart_mm / np.sqrt(spread_mm2[one] + spread_mm2[other] + half_voxel_mm**2),
                np.log(smaller * self.spacing_mm.prod()),
                self.peak_offset_mm[low],
                count / smaller ** (1 - 1 / len(self.spacing_mm)),
                neck_mm / np.minimum(self.depth_mm[one], self.depth_mm[other]),
            ]
        )

    def merge(self, one: int, other: int) -> tuple[int, int]:
        """Merge two pieces that touch; return the one that stays, which has the higher peak, and the one that goes."""
        stays, goes = (one, other) if self.height[one] >= self.height[other] else (other, one)
        for values in (self.n_voxels, self.votes_mm, self.squared_mm2):
            values[stays] += values[goes]
        self.depth_mm[stays] = max(self.depth_mm[stays], self.depth_mm[goes])
        for neighbor, contact in self.contacts[goes].items():
            del self.contacts[neighbor][goes]
            if neighbor != stays:
                before = self.contacts[stays].get(neighbor, np.zeros(3))
                joined = np.append(before[:2] + contact[:2], max(before[2], contact[2]))
                self.contacts[stays][neighbor] = self.contacts[neighbor][stays] = joined
        self.contacts[goes] = {}
        return stays, goes


def contacts_of(n: int, pairs: np.ndarray, values: np.ndarray) -> list[dict[int, np.ndarray]]:
    """The (P, 2) touching pairs of n pieces with their (P, 3) values, as :attr:`PieceGraph.contacts` holds them."""
    contacts: list[dict[int, np.ndarray]] = [{} for _ in range(n)]
    for (one, other), contact in zip(pairs.tolist(), values, strict=True):
        contacts[one][other] = contacts[other][one] = contact
    return contacts


def depths_mm(voxels: Voxels, component: np.ndarray, piece: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """(N,) distance of each voxel from the nearest voxel of background; what lies beyond the image is background, too.

    In components of one piece, in which nothing touches, it is not measured, and 0.
    """
    depth_mm = np.zeros(len(voxels))
    for _, members in groups(component):
        if (piece[members] != piece[members[0]]).any():
            within = voxels.coordinates[members] - voxels.coordinates[members].min(axis=0) + 1
            depth_mm[members] = DepthBox.of(within, tuple(within.max(axis=0) + 2), spacing_mm).of_voxels
    return depth_mm


def _lowest_between(heads: HeadMaps, peak: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """See :attr:`PieceGraph.lowest_between`; `peak` is (K, dim), the highest voxel of each piece."""
    first, last = peak[pairs[:, 0]], peak[pairs[:, 1]]
    n_steps = np.abs(last - first).max(axis=1)
    pair = np.repeat(np.arange(len(pairs)), n_steps + 1)
    step = np.arange(len(pair)) - np.repeat(np.cumsum(n_steps + 1) - n_steps - 1, n_steps + 1)
    share = (step / np.maximum(n_steps[pair], 1))[:, None]
    line = np.rint(first[pair] + share * (last - first)[pair]).astype(np.int64)
    lowest = np.full(len(pairs), np.inf)
    np.minimum.at(lowest, pair, heads.heatmap_at(line))
    return lowest
