"""Where to look in an instance map: the largest lesion, and lesions that touch."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.pictures.sections import sections_through
from nnunetv2_conflunet.postprocessing.voxels import Voxels

# What is shown around a place: this much more than its lesions, but not less and not more than these.
AROUND, FIELD_MM = 1.5, (40.0, 130.0)


@dataclass(frozen=True)
class Place:
    """Lesions to show together.

    Attributes:
        ids: of the lesions; touching ones, or a single one.
        voxel: (3,) array index of a voxel of one of them.
        field_mm: side of the square to show around it.
        volume: of the lesions, in voxels.
    """

    ids: tuple[int, ...]
    voxel: tuple[int, ...]
    field_mm: float
    volume: int


def largest_lesion(instances: np.ndarray, geometry: Geometry) -> Place | None:
    """The lesion with the most voxels (at a tie the lowest id), at its voxel nearest to its center of mass.

    Args:
        instances: (X, Y, Z) ids.
        geometry: of that array.

    Returns:
        None if there are no lesions.

    >>> geometry = Geometry.from_properties((1, 4, 6), {"spacing": (1.0, 1.0, 1.0)})
    >>> largest_lesion(np.array([[[0, 2, 2, 2, 0, 1]]]), geometry).voxel
    (0, 0, 2)
    """
    ids, sizes = np.unique(instances[instances != 0], return_counts=True)
    if not len(ids):
        return None
    largest = int(ids[sizes.argmax()])
    at = np.argwhere(instances == largest)
    return Place((largest,), _nearest_to_mean(at, geometry), _field_mm(at, geometry), len(at))


def touching_groups(instances: np.ndarray, geometry: Geometry) -> list[Place]:
    """The groups of lesions that touch (26 neighbors; in a plane 8), those with the most lesions first.

    The voxel lies at a contact: in the axial slice (of a volume without orientation, the slice along the first axis)
    in which contacts of the most lesions of the group lie, and there nearest to the middle of these contacts.

    Args:
        instances: (X, Y, Z) ids.
        geometry: of that array.

    >>> geometry = Geometry.from_properties((1, 1, 8), {"spacing": (1.0, 1.0, 1.0)})
    >>> [(group.ids, group.voxel) for group in touching_groups(np.array([[[1, 1, 2, 0, 5, 7, 3, 0]]]), geometry)]
    [((3, 5, 7), (0, 0, 5)), ((1, 2), (0, 0, 1))]
    """
    at = np.argwhere(instances != 0)
    flat = int(geometry.is_plane)
    voxels, label = Voxels(at[:, flat:]), instances[tuple(at.T)]
    connectivity = 8 if flat else 26
    component = voxels.components(connectivity)
    one, other = voxels.contacts(label, connectivity)
    touching = np.unique(np.append(one, other))
    across = sections_through(geometry, (0, 0, 0))[0].axis
    groups = []
    for number in np.unique(component[touching]).tolist():
        mine = touching[component[touching] == number]
        level = at[mine, across]
        pairs = np.unique(np.stack([level, label[mine]], axis=1), axis=0)
        levels, n_lesions = np.unique(pairs[:, 0], return_counts=True)
        here = at[mine[level == levels[n_lesions.argmax()]]]
        members = at[component == number]
        ids = np.unique(label[component == number]).tolist()
        groups.append(Place(tuple(ids), _nearest_to_mean(here, geometry), _field_mm(members, geometry), len(members)))
    return sorted(groups, key=lambda group: (-len(group.ids), -group.volume, group.ids))


def _nearest_to_mean(at: np.ndarray, geometry: Geometry) -> tuple[int, ...]:
    """The voxel nearest to the mean of all, in mm."""
    apart_mm = (at - at.mean(axis=0)) * geometry.spacing_mm
    return tuple(at[(apart_mm**2).sum(axis=1).argmin()].tolist())


def _field_mm(at: np.ndarray, geometry: Geometry) -> float:
    extent_mm = ((at.max(axis=0) - at.min(axis=0) + 1) * geometry.spacing_mm)[int(geometry.is_plane) :]
    return float(np.clip(AROUND * extent_mm.max(), *FIELD_MM))
