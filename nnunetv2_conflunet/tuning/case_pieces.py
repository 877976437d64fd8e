"""The pieces of one validation case, in a form from which they are merged and scored without any voxel."""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.evaluation.metrics.overlap import OverlapTable
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import merge_pieces
from nnunetv2_conflunet.postprocessing.piece_graph import PieceGraph, PieceMeasures, contacts_of
from nnunetv2_conflunet.postprocessing.voxels import joined_by_pairs, sizes_and_boxes
from nnunetv2_conflunet.tuning.scoring import CaseArrays, InstancesAtPoints, ScoredInstances
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import atomic_path

# Increased whenever a change of the code changes what the files mean.
FORMAT = 2
# Pairs whose lines are looked at together; a few tens of MB.
PAIRS_AT_ONCE = 2**14
# More pairs in the components of a case are those of a heatmap that is noise; these take 0.3 GB.
MOST_PAIRS = 5 * 10**6


@dataclass(frozen=True, eq=False)
class CasePieces(PieceMeasures):
    """K pieces of one case: which of them touch, and what they share with the R lesions of its reference.

    A merged instance is a union of pieces, so that its size, its box and its overlaps follow from theirs.

    Attributes:
        first: (K, dim) lowest index of the voxels of each piece.
        last: (K, dim) highest index.
        touching: (T, 2) pairs that touch, the lower number first.
        contact: (T, 3) see :attr:`.PieceGraph.contacts`.
        near: (S, 2) all pairs of a component, ascending.
        lowest: (S,) the lowest heatmap between their highest voxels.
        overlap: (O, 3) piece, index of the lesion, and the voxels that both share.
        lesion_voxels: (R,) size of each lesion of the reference.
        unknown_voxels: (K,) voxels of each piece that are of unknown instances in the reference.
    """

    first: np.ndarray
    last: np.ndarray
    touching: np.ndarray
    contact: np.ndarray
    near: np.ndarray
    lowest: np.ndarray
    overlap: np.ndarray
    lesion_voxels: np.ndarray
    unknown_voxels: np.ndarray

    @classmethod
    def of(cls, made: InstancesAtPoints, settings: InstantiationSettings) -> "CasePieces":
        """The pieces that `settings` make before any are merged."""
        piece = made.pieces(settings).instance - 1
        graph = PieceGraph.of(made.voxels, piece, made.heads, made.connectivity)
        _, _, first, last = sizes_and_boxes(made.voxels.coordinates, piece)
        touching = graph.pairs()
        near = _pairs_of_components(touching, len(graph.n_voxels))
        parts = np.split(near, range(PAIRS_AT_ONCE, len(near), PAIRS_AT_ONCE))
        table = made.overlaps_of(piece + 1)
        return cls(
            **graph.measures(),
            first=first,
            last=last,
            touching=touching,
            contact=np.array([graph.contacts[one][other] for one, other in touching.tolist()]).reshape(-1, 3),
            near=near,
            lowest=np.concatenate([graph.lowest_between(part) for part in parts]),
            overlap=np.stack([table.pair_prediction, table.pair_reference, table.pair_voxels], axis=1),
            lesion_voxels=table.reference_voxels,
            unknown_voxels=made.unknown_voxels_of(piece + 1),
        )

    def graph(self) -> PieceGraph:
        """The graph of the pieces, anew each time, since merging changes it."""
        contacts = contacts_of(len(self.n_voxels), self.touching, self.contact)
        return PieceGraph(**self.measures(), contacts=contacts, lowest_between=self._lowest_between)

    @cached_property
    def teaching(self) -> np.ndarray:
        """(U, 2) the pairs that touch and tell something: of neither piece most lesion voxels may be unknown ones."""
        largest = np.zeros(len(self.n_voxels), np.int64)
        np.maximum.at(largest, self.overlap[:, 0], self.overlap[:, 2])
        on_unknown = (self.unknown_voxels > 0) & (self.unknown_voxels >= largest)
        return self.touching[~on_unknown[self.touching].any(axis=1)]

    @cached_property
    def features(self) -> np.ndarray:
        """(U, features) of the pairs that teach, see :class:`.MergeRule`."""
        return self.graph().features(self.teaching)

    @cached_property
    def of_one_lesion(self) -> np.ndarray:
        """(U,) bool, whether most lesion voxels of both pieces of a pair that teaches are of one lesion."""
        first, second = self.main_lesions[self.teaching].T
        return (first == second) & (first >= 0)

    @cached_property
    def main_lesions(self) -> np.ndarray:
        """(K,) index of the lesion that has most voxels of each piece, of equally many the first; -1 for none."""
        main = np.full(len(self.n_voxels), -1)
        piece, lesion, n_voxels = self.overlap.T
        # What comes last stays.
        order = np.lexsort((-lesion, n_voxels))
        main[piece[order]] = lesion[order]
        return main

    def score(self, settings: InstantiationSettings, scoring: EvaluationSettings) -> np.ndarray:
        """(metrics,) in the order of :data:`.scoring.METRICS`, of the pieces after merging and the size filters.

        Args:
            settings: those that made the pieces, with any `merge`.
            scoring: those that filtered the reference.
        """
        owner = np.arange(len(self.n_voxels)) if settings.merge is None else merge_pieces(self.graph(), settings.merge)
        instances, instance = np.unique(owner, return_inverse=True)
        n = len(instances)
        n_voxels = np.bincount(instance, self.n_voxels, n).astype(np.int64)
        first = np.full((n, len(self.spacing_mm)), np.iinfo(np.int64).max)
        np.minimum.at(first, instance, self.first)
        last = np.zeros_like(first)
        np.maximum.at(last, instance, self.last)
        unknown_voxels = np.bincount(instance, self.unknown_voxels, n)
        overlaps, unsure = self._overlaps_of(instance, n_voxels), np.full(n, np.nan)
        merged = ScoredInstances(overlaps, n_voxels, last - first + 1, unknown_voxels, unsure)
        return np.array(merged.score(settings, scoring, self.spacing_mm))

    def _overlaps_of(self, instance: np.ndarray, n_voxels: np.ndarray) -> OverlapTable:
        n_lesions = len(self.lesion_voxels)
        piece, lesion, shared = self.overlap.T
        key, inverse = np.unique(instance[piece] * max(n_lesions, 1) + lesion, return_inverse=True)
        of_pair, of_lesion = np.divmod(key, max(n_lesions, 1))
        voxels = np.bincount(inverse, shared, len(key)).astype(np.int64)
        ids = np.arange(1, 1 + len(n_voxels)), np.arange(1, 1 + n_lesions)
        return OverlapTable(ids[0], n_voxels, ids[1], self.lesion_voxels, of_pair, of_lesion, voxels)

    def _lowest_between(self, pairs: np.ndarray) -> np.ndarray:
        n = len(self.n_voxels)
        known, wanted = self.near @ (n, 1), np.sort(pairs, axis=1) @ (n, 1)
        return self.lowest[np.searchsorted(known, wanted)]


def pieces_of_case(
    case: CaseArrays, tried: Sequence[InstantiationSettings], scoring: EvaluationSettings
) -> list[CasePieces]:
    """The pieces of a case by each of some settings, with its reference as filtered by the evaluator."""
    made = InstancesAtPoints(case, tried, scoring)
    return [CasePieces.of(made, settings) for settings in tried]


def save_pieces(path: Path, tried: Sequence[InstantiationSettings], pieces: Sequence[CasePieces]) -> None:
    """Write the pieces that several settings make of a case as a compressed .npz."""
    names = [field.name for field in fields(CasePieces)]
    arrays: dict[str, Any] = {f"{i}.{name}": getattr(one, name) for i, one in enumerate(pieces) for name in names}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, made_by=_made_by(tried), **arrays)


def load_pieces(path: Path, tried: Sequence[InstantiationSettings]) -> list[CasePieces]:
    """Read what :func:`save_pieces` wrote.

    Raises:
        InputError: the file is broken, or holds pieces of other settings or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["made_by"]) != _made_by(tried):
                raise InputError(f"{path} holds pieces of other settings; validate its fold again.")
            names = [field.name for field in fields(CasePieces)]
            return [CasePieces(*(stored[f"{i}.{name}"] for name in names)) for i in range(len(tried))]
    except InputError:
        raise
    except (KeyError, ValueError, EOFError, OSError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); validate its fold again.") from error


def _made_by(tried: Sequence[InstantiationSettings]) -> str:
    return json.dumps([FORMAT, *(one.to_dict() for one in tried)])


def _pairs_of_components(touching: np.ndarray, n: int) -> np.ndarray:
    """(S, 2) all pairs of n pieces that a chain of touching pieces joins, the lower number first, ascending."""
    component = joined_by_pairs(n, *touching.T)
    order = np.argsort(component, kind="stable")
    n_pairs = sum(k * (k - 1) // 2 for k in np.bincount(component).tolist())
    if n_pairs > MOST_PAIRS:
        raise InputError(
            f"{n} pieces of touching lesions are too many to learn from ({n_pairs:,} pairs); is the network trained? "
            "nnUNetv2_conflunet_determine_postprocessing leaves merging out with --no_merging."
        )
    groups = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    pairs = [group[np.stack(np.triu_indices(len(group), 1), axis=1)] for group in groups]
    found = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    return found[np.lexsort((found[:, 1], found[:, 0]))]
