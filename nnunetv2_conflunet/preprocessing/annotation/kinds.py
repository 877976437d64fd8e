"""The kinds of slips, from where on they are listed, and one finding."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits, limit_option
from nnunetv2_conflunet.utilities.array_checks import check_positive
from nnunetv2_conflunet.utilities.options import option

# In the order in which they are listed: what most likely is a mistake comes first.
KINDS = {
    "reused_id": "one id on lesions far apart",
    "pieces": "one id in several pieces",
    "contact": "two ids that touch by one voxel only",
    "single_voxel": "single voxels",
    "small": "lesions below the size limits",
    "border": "lesions cut by the image border",
}


@dataclass(frozen=True)
class SlipLimits:
    """From where on something is listed.

    Attributes:
        min_volume_mm3, min_extent_mm, min_area_mm2: lesions below are small, see :class:`SizeLimits`.
        far_apart_mm: an id in pieces that are farther apart was probably used twice.

    Raises:
        InputError: a value that is not possible.
    """

    min_volume_mm3: float = limit_option("min_volume_mm3")
    min_extent_mm: float = limit_option("min_extent_mm")
    min_area_mm2: float = limit_option("min_area_mm2")
    far_apart_mm: float = option(30.0, "an id in pieces farther apart than this was probably used twice")

    def __post_init__(self):
        check_positive(self.far_apart_mm, "far_apart_mm")
        # Checks the limits.
        _ = self.sizes

    @property
    def sizes(self) -> SizeLimits:
        """The limits of the size filter."""
        return SizeLimits(self.min_volume_mm3, self.min_extent_mm, self.min_area_mm2)


@dataclass(frozen=True)
class Slip:
    """One finding.

    Attributes:
        kind: one of :data:`KINDS`.
        id: the instance.
        at: (dim,) array index to look at: a voxel of the instance or, for contacts, of the one that it touches.
        n_voxels: of the instance.
        text: what was found, in words.
        other_id: the instance that it touches, for contacts.
        n_pieces: connected pieces of the instance, where there are several.
        distance_mm: from its largest piece to the farthest other one, between the nearest voxel centers of both.
    """

    kind: str
    id: int
    at: tuple[int, ...]
    n_voxels: int
    text: str
    other_id: int | None = None
    n_pieces: int | None = None
    distance_mm: float | None = None


def count_slips(slips: Sequence[Slip]) -> dict[str, int]:
    """How many findings there are of each kind that occurs.

    >>> count_slips([Slip("small", 1, (0, 0), 2, ""), Slip("small", 2, (0, 0), 2, "")])
    {'small': 2}
    """
    counts = {kind: sum(slip.kind == kind for slip in slips) for kind in KINDS}
    return {kind: n for kind, n in counts.items() if n}


def describe_counts(found: Iterable[Mapping[str, int]]) -> str:
    """How often each kind was found, in one line; empty if nothing was found.

    Args:
        found: the counts of each case, see :func:`count_slips`.

    >>> describe_counts([{"small": 2}, {}, {"small": 1, "border": 1}])
    'lesions below the size limits: 3 in 2 cases; lesions cut by the image border: 1 in 1 case'
    """
    counts = list(found)
    texts = []
    for kind, name in KINDS.items():
        of_kind = [count[kind] for count in counts if kind in count]
        if of_kind:
            texts.append(f"{name}: {sum(of_kind)} in {len(of_kind)} case{'s' * (len(of_kind) > 1)}")
    return "; ".join(texts)
