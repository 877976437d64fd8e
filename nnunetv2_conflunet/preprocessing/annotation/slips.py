"""What annotators slip on, found in one instance map: arrays in, findings out."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits
from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels, groups, sizes_and_boxes
from nnunetv2_conflunet.preprocessing.annotation.kinds import KINDS, Slip, SlipLimits
from nnunetv2_conflunet.utilities.array_checks import check_spacing, flat_axes
from nnunetv2_conflunet.utilities.errors import list_some

# A piece lies in a hemisphere if all of it is at least so far from the middle of the image.
MIDDLE_MARGIN_MM = 5.0
Face = tuple[str, str]


def find_slips(
    instances: np.ndarray,
    spacing_mm: Sequence[float],
    limits: SlipLimits | None = None,
    *,
    left_right_axis: int | None = None,
    faces: Sequence[Face] | None = None,
) -> list[Slip]:
    """Everything in a map that annotators slip on; nothing of it need be wrong.

    Voxels are connected through 26 neighbors (in a plane 8). Time and memory grow with the voxels of the lesions.

    - ``reused_id``: an id in pieces farther apart than `far_apart_mm`, or with one piece on the left and one on the
      right of the image's middle (each with all voxels at least 5 mm from it). A connected lesion that crosses the
      middle, as in the corpus callosum, is not listed.
    - ``pieces``: any other id in several pieces.
    - ``contact``: two ids, both of several voxels, whose contact holds a single voxel of at least one of them.
    - ``single_voxel``: a lesion of one voxel, or such a piece of a larger one.
    - ``small``: a larger lesion below the size limits.
    - ``border``: a lesion with voxels in the first or last slice along an axis, which may continue outside.

    Args:
        instances: (X, Y, Z) or (Y, X) non-negative integers, 0 is background; with X = 1 it is a plane.
        spacing_mm: voxel size along each axis.
        limits: default: those of the size filter, and 30 mm.
        left_right_axis: the array axis from one side of a head to the other; None if that is not known, and
            hemispheres are not told apart then.
        faces: names of the first and last slice along each array axis.

    Returns:
        The findings, by kind, then id.

    >>> instances = np.zeros((9, 9, 40), int)
    >>> instances[2:5, 2:5, 2:5] = instances[2:5, 2:5, 36:39] = 1
    >>> [(slip.kind, slip.id, slip.distance_mm) for slip in find_slips(instances, (1, 1, 1))]
    [('reused_id', 1, 32.0)]
    """
    limits = limits or SlipLimits()
    spacing = check_spacing(spacing_mm, instances.ndim)
    flat = flat_axes(instances.ndim, instances.shape)
    faces = list(faces or [(f"first slice of axis {i}", f"last slice of axis {i}") for i in range(instances.ndim)])
    found = _Map(instances[0] if flat else instances, spacing[len(flat) :])
    side = None if left_right_axis is None else left_right_axis - len(flat)
    slips = [
        *found.in_pieces(limits.far_apart_mm, side if side is None or side >= 0 else None),
        *found.contacts(),
        *found.single_voxels(),
        *found.small(limits.sizes),
        *found.at_border(faces[len(flat) :]),
    ]
    order = list(KINDS)
    slips.sort(key=lambda slip: (order.index(slip.kind), slip.id))
    return [slip if not flat else _in_volume(slip) for slip in slips]


class _Map:
    """The voxels of a map with their instances and pieces."""

    def __init__(self, view: np.ndarray, spacing_mm: np.ndarray):
        self.shape, self.spacing_mm = view.shape, spacing_mm
        self.voxels = Voxels.of(view != 0)
        self.coordinates = self.voxels.coordinates
        self.connectivity = 8 if view.ndim == 2 else 26
        _, self.member = np.unique(view[tuple(self.coordinates.T)], return_inverse=True)
        ids, self.size, self.first, self.last = sizes_and_boxes(self.coordinates, view[tuple(self.coordinates.T)])
        self.ids = ids.tolist()
        self.positions = [positions for _, positions in groups(self.member)]
        self.piece = self.voxels.components(self.connectivity, self.member)
        self.starts = first_voxels(self.piece)
        self.piece_size = np.bincount(self.piece)[1:]
        self.piece_member = self.member[self.starts]

    def in_pieces(self, far_apart_mm: float, side: int | None) -> Iterator[Slip]:
        """Ids in several pieces."""
        for member in np.flatnonzero(np.bincount(self.piece_member, minlength=len(self.ids)) > 1).tolist():
            yield self._in_pieces(member, far_apart_mm, side)

    def _in_pieces(self, member: int, far_apart_mm: float, side: int | None) -> Slip:
        mine = self.positions[member]
        at_mm = self.coordinates[mine] * self.spacing_mm
        numbers, piece = np.unique(self.piece[mine], return_inverse=True)
        sizes = self.piece_size[numbers - 1]
        main = int(sizes.argmax())
        apart_mm, _ = cKDTree(at_mm[piece == main]).query(at_mm)
        nearest_mm = ndimage.minimum(apart_mm, piece, np.arange(len(numbers)))
        farthest = int(nearest_mm.argmax())
        distance_mm = round(float(nearest_mm[farthest]), 2)
        text = f"{len(numbers)} pieces of {list_some(sorted(sizes.tolist(), reverse=True), 5)} voxels"
        text += f", up to {distance_mm:.1f} mm from the largest"
        both = side is not None and self._on_both_sides(at_mm[:, side], piece, side)
        text += ", on both sides of the image's middle" if both else ""
        kind = "reused_id" if both or distance_mm > far_apart_mm else "pieces"
        at = self._middle(mine[piece == farthest])
        return self._slip(kind, member, at, text, n_pieces=len(numbers), distance_mm=distance_mm)

    def _on_both_sides(self, along_mm: np.ndarray, piece: np.ndarray, side: int) -> bool:
        middle_mm = (self.shape[side] - 1) / 2 * self.spacing_mm[side]
        lowest, highest, *_ = ndimage.extrema(along_mm - middle_mm, piece, np.arange(piece.max() + 1))
        return bool((highest <= -MIDDLE_MARGIN_MM).any() and (lowest >= MIDDLE_MARGIN_MM).any())

    def contacts(self) -> Iterator[Slip]:
        """Pairs of ids that touch by one voxel of either; specks are listed by themselves."""
        one, other = self.voxels.contacts(self.member, self.connectivity)
        # The instance with the lower id first.
        swap = self.member[one] > self.member[other]
        one, other = np.where(swap, other, one), np.where(swap, one, other)
        pair = self.member[one] * len(self.ids) + self.member[other]
        pairs, example, index = np.unique(pair, return_index=True, return_inverse=True)
        touching = [self._voxels_of_pairs(index, voxel, len(pairs)) for voxel in (one, other)]
        first, second = np.divmod(pairs, max(1, len(self.ids)))
        chosen = (np.minimum(*touching) == 1) & (self.size[first] > 1) & (self.size[second] > 1)
        for k in np.flatnonzero(chosen):
            counts = [int(side[k]) for side in touching]
            # The side that touches by one voxel always does so by the same one.
            voxel = (one if counts[0] == 1 else other)[example[k]]
            text = f"{counts[0]} of its voxels and {counts[1]} of those of {self.ids[second[k]]} touch"
            yield self._slip("contact", int(first[k]), voxel, text, other_id=self.ids[second[k]])

    def _voxels_of_pairs(self, pair: np.ndarray, voxel: np.ndarray, n_pairs: int) -> np.ndarray:
        """(n_pairs,) how many different voxels each pair has."""
        different = np.unique(pair * max(1, len(self.voxels)) + voxel)
        return np.bincount(different // max(1, len(self.voxels)), minlength=n_pairs)

    def single_voxels(self) -> Iterator[Slip]:
        """Pieces of one voxel."""
        for piece in np.flatnonzero(self.piece_size == 1):
            member = int(self.piece_member[piece])
            whole = self.size[member] == 1
            text = "a lesion of one voxel" if whole else f"one voxel apart from the rest of {self.size[member]} voxels"
            yield self._slip("single_voxel", member, self.starts[piece], text)

    def small(self, limits: SizeLimits) -> Iterator[Slip]:
        """Lesions of more than one voxel below the limits."""
        extent = self.last - self.first + 1
        chosen = np.flatnonzero(~limits.reached(self.size, extent, self.spacing_mm) & (self.size > 1))
        dim = len(self.spacing_mm)
        for member in chosen.tolist():
            size = f"{self.size[member] * self.spacing_mm.prod():.4g} mm{dim}"
            lengths = " x ".join(f"{length:.3g}" for length in extent[member] * self.spacing_mm)
            at = self._middle(self.positions[member])
            yield self._slip("small", member, at, f"{size}, {lengths} mm; limits {limits.describe(dim)}")

    def at_border(self, faces: Sequence[Face]) -> Iterator[Slip]:
        """Lesions with voxels in an outer slice."""
        ends = np.stack([self.first == 0, self.last == np.array(self.shape) - 1], axis=2)
        ends &= (np.array(self.shape) > 1)[:, None]
        for member in np.flatnonzero(ends.any(axis=(1, 2))).tolist():
            reached = [(int(axis), int(end)) for axis, end in np.argwhere(ends[member])]
            axis, end = reached[0]
            mine = self.positions[member]
            outermost = (self.last if end else self.first)[member, axis]
            at = self._middle(mine[self.coordinates[mine, axis] == outermost])
            text = f"reaches the {list_some([faces[axis][end] for axis, end in reached])}"
            yield self._slip("border", member, at, text)

    def _middle(self, positions: np.ndarray) -> int:
        """The voxel nearest to the center of mass of some."""
        at_mm = self.coordinates[positions] * self.spacing_mm
        return int(positions[((at_mm - at_mm.mean(axis=0)) ** 2).sum(axis=1).argmin()])

    def _slip(self, kind: str, member: int, voxel: int, text: str, **others) -> Slip:
        at = tuple(self.coordinates[voxel].tolist())
        return Slip(kind, self.ids[member], at, int(self.size[member]), text, **others)


def _in_volume(slip: Slip) -> Slip:
    """With the index along the first axis, of length 1."""
    return Slip(**{**slip.__dict__, "at": (0, *slip.at)})
