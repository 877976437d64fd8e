"""The slips of one case, with all that is needed to list and to show them."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from nibabel.orientations import io_orientation

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.imageio.unknown import without_unknown
from nnunetv2_conflunet.pictures.sections import FILE_AXES, tilt_degrees
from nnunetv2_conflunet.pictures.views import View
from nnunetv2_conflunet.preprocessing.annotation.kinds import Slip, SlipLimits
from nnunetv2_conflunet.preprocessing.annotation.slips import Face, find_slips

# Smallest and largest field of view that holds a head and little else, along world x, y and z.
HEAD_MM = (120.0, 320.0), (150.0, 350.0), (100.0, 400.0)
MAX_TILT_DEGREES = 25.0
# What is shown around a finding: its lesion, but not less and not more than this.
FIELD_MM = 40.0, 120.0
FACES = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))


@dataclass(frozen=True)
class CaseSlips:
    """What was found in one case.

    Attributes:
        slips: the findings.
        geometry: the grid of the map.
        knows_sides: whether left and right are known, so that hemispheres were told apart.
        views: the planes of the first findings of each kind.
    """

    slips: list[Slip]
    geometry: Geometry
    knows_sides: bool
    views: dict[int, View] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """One row for each finding, with the position to look at as voxel and world coordinates of the file."""
        at = np.array([slip.at for slip in self.slips], float).reshape(-1, 3)
        voxels = np.rint(self.geometry.to_file_index(at)).astype(int)
        world_mm = self.geometry.to_world_mm(at)
        columns = {
            "kind": [slip.kind for slip in self.slips],
            "id": [slip.id for slip in self.slips],
            "other_id": pd.array([slip.other_id for slip in self.slips], "Int64"),
            "n_voxels": [slip.n_voxels for slip in self.slips],
            "n_pieces": pd.array([slip.n_pieces for slip in self.slips], "Int64"),
            "distance_mm": pd.array([slip.distance_mm for slip in self.slips], "Float64"),
            **{f"voxel_{axis}": voxels[:, i] for i, axis in enumerate(FILE_AXES)},
            **{f"world_{axis}_mm": world_mm[:, i].round(3) for i, axis in enumerate("xyz")},
            "world_convention": [self.geometry.world] * len(self.slips),
            "finding": [slip.text for slip in self.slips],
        }
        return pd.DataFrame(columns)


def examine_case(
    instances: np.ndarray,
    geometry: Geometry,
    limits: SlipLimits | None = None,
    views_per_kind: int = 0,
    unknown: int | None = None,
) -> CaseSlips:
    """Find the slips in a map.

    Args:
        instances: (X, Y, Z) ids.
        geometry: of that array.
        limits: from where on something is listed.
        views_per_kind: so many findings of each kind get a view.
        unknown: the id of unknown instances, about which nothing is found; or None.

    >>> instances = np.zeros((1, 9, 9), int)
    >>> instances[0, 4, 4] = 7
    >>> geometry = Geometry.from_properties(instances.shape, {"spacing": (1.0, 0.5, 0.5)})
    >>> examine_case(instances, geometry).table()[["kind", "id", "voxel_i", "world_x_mm"]].values.tolist()
    [['single_voxel', 7, 4, 2.0]]
    """
    side = left_right_axis(geometry)
    known = without_unknown(instances, unknown)
    slips = find_slips(known, geometry.spacing_mm, limits, left_right_axis=side, faces=_faces(geometry))
    views: dict[int, View] = {}
    shown: dict[str, int] = {}
    for number, slip in enumerate(slips):
        shown[slip.kind] = shown.get(slip.kind, 0) + 1
        if shown[slip.kind] <= views_per_kind:
            # Pieces, and lesions that touch at a corner, lie in different slices.
            apart = [] if slip.distance_mm is None and slip.other_id is None else [slip.id, slip.other_id or slip.id]
            views[number] = View.of(instances, geometry, slip.at, _field_mm(slip, geometry), elsewhere=apart)
    return CaseSlips(slips, geometry, side is not None, views)


def left_right_axis(geometry: Geometry) -> int | None:
    """The array axis from left to right, if the image is oriented and as large as a head; else None.

    >>> left_right_axis(Geometry.from_properties((4, 5, 6), {"spacing": (3.0, 1.0, 1.0)})) is None
    True
    """
    if geometry.world == "none" or geometry.is_plane or tilt_degrees(geometry) > MAX_TILT_DEGREES:
        return None
    world = io_orientation(geometry.affine)[:, 0].astype(int)
    size_mm = np.array(geometry.shape) * geometry.spacing_mm
    sizes = (HEAD_MM[axis][0] <= size <= HEAD_MM[axis][1] for axis, size in zip(world, size_mm, strict=True))
    return int(np.flatnonzero(world == 0)[0]) if all(sizes) else None


def _faces(geometry: Geometry) -> list[Face]:
    """How a person names the first and last slice along each array axis."""
    if geometry.world == "none" or geometry.is_plane:
        numbers = np.abs(geometry.file_index[:3, :3]).argmax(axis=0)
        return [(f"first slice along {FILE_AXES[i]}", f"last slice along {FILE_AXES[i]}") for i in numbers]
    names = ((FACES[int(world)], sign) for world, sign in io_orientation(geometry.affine))
    low_high = (pair if sign > 0 else pair[::-1] for pair, sign in names)
    return [(f"{low} border", f"{high} border") for low, high in low_high]


def _field_mm(slip: Slip, geometry: Geometry) -> float:
    """Wide enough for another piece, or for a lesion about three times as wide as a ball of its volume."""
    spacing_mm = np.array(geometry.spacing_mm)[1 if geometry.is_plane else 0 :]
    width_mm = 3 * (slip.n_voxels * spacing_mm.prod()) ** (1 / len(spacing_mm))
    return float(np.clip(max(width_mm, 2.5 * (slip.distance_mm or 0)), *FIELD_MM))
