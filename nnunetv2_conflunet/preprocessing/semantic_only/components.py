"""Which connected components of a mask look like one lesion, judged by their shape alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

from nnunetv2_conflunet.postprocessing.baselines.depth import DepthBox
from nnunetv2_conflunet.postprocessing.voxels import groups, lesion_voxels, line_ends
from nnunetv2_conflunet.utilities.array_checks import check_positive, check_share, check_spacing, flat_axes
from nnunetv2_conflunet.utilities.options import option

# Voxels are this thick when their hull is computed, in voxels, so that rows and planes of voxels have one, too.
THICKNESS = 0.01
ROUNDING = 1e-9


@dataclass(frozen=True)
class ComponentSettings:
    """From where on a connected component looks like several lesions.

    Attributes:
        max_diameter_mm: larger components are several; of a ball of the same volume, in a plane of a disk of the same
            area.
        min_solidity: components that fill less of their convex hull are several.
        h_maxima_mm: two maxima of the distance transform are two lesions if it falls by more than this between them,
            below the lower one.

    Raises:
        InputError: a value that is not possible.
    """

    max_diameter_mm: float = option(10.0, "larger components, by the diameter of a ball of their volume, are unknown")
    min_solidity: float = option(0.9, "components that fill less than this share of their convex hull are unknown")
    h_maxima_mm: float = option(
        0.5, "two maxima of the distance transform are two lesions if it drops by more mm between them"
    )

    def __post_init__(self):
        check_positive(self.max_diameter_mm, "max_diameter_mm")
        check_share(self.min_solidity, "min_solidity")
        check_positive(self.h_maxima_mm, "h_maxima_mm")


@dataclass(frozen=True, eq=False)
class Components:
    """The shapes of the connected components of one map.

    Attributes:
        ids: (N,) ascending.
        n_voxels: (N,).
        size: (N,) volume in mm3, in a plane area in mm2.
        center: (N, dim of the array) mean index of the voxels.
        diameter_mm: (N,) of a ball of the same volume, in a plane of a disk of the same area.
        solidity: (N,) share of the voxels in the convex hull of the component that belong to it.
        n_maxima: (N,) maxima of the distance transform, at least 1.
    """

    ids: np.ndarray
    n_voxels: np.ndarray
    size: np.ndarray
    center: np.ndarray
    diameter_mm: np.ndarray
    solidity: np.ndarray
    n_maxima: np.ndarray

    @classmethod
    def measure(cls, components: np.ndarray, spacing_mm: Sequence[float], h_maxima_mm: float) -> "Components":
        """Measure every component of a map.

        Args:
            components: (X, Y, Z) or (Y, X) ids, 0 is background; an image whose first axis of three has length 1, as
                nnU-Net has 2D images, is a plane.
            spacing_mm: voxel size along each axis.
            h_maxima_mm: see :class:`ComponentSettings`.

        Raises:
            InputError: a spacing of another length, or not positive.

        >>> corner = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 2]])
        >>> found = Components.measure(corner, (1.0, 1.0), h_maxima_mm=0.5)
        >>> found.size.tolist(), found.solidity.round(2).tolist(), found.n_maxima.tolist()
        ([5.0, 1.0], [0.83, 1.0], [1, 1])
        """
        spacing = check_spacing(spacing_mm, components.ndim)
        index, ids = lesion_voxels(components)
        at, flat = np.stack(index, axis=1), flat_axes(components.ndim, components.shape)
        inside, spacing, shape = at[:, len(flat) :], spacing[len(flat) :], components.shape[len(flat) :]
        found = [(label, members) for label, members in groups(ids)]
        n_voxels = np.array([len(members) for _, members in found], np.int64)
        size = n_voxels * spacing.prod()
        each = [inside[members] for _, members in found]
        return cls(
            ids=np.array([label for label, _ in found], np.int64),
            n_voxels=n_voxels,
            size=size,
            center=np.array([at[members].mean(axis=0) for _, members in found]).reshape(-1, components.ndim),
            diameter_mm=2 * np.sqrt(size / np.pi) if len(spacing) == 2 else np.cbrt(6 * size / np.pi),
            solidity=np.array([len(one) / voxels_in_hull(one) for one in each], float),
            n_maxima=np.array([_n_maxima(one, shape, spacing, h_maxima_mm) for one in each], np.int64),
        )

    def faults(self, settings: ComponentSettings) -> dict[str, np.ndarray]:
        """For each criterion which components fail it, (N,) bool; one that fails none looks like one lesion."""
        return {
            "diameter": self.diameter_mm > settings.max_diameter_mm * (1 + ROUNDING),
            "solidity": self.solidity < settings.min_solidity - ROUNDING,
            "maxima": self.n_maxima > 1,
        }

    def look_single(self, settings: ComponentSettings) -> np.ndarray:
        """Which components look like one lesion, (N,) bool.

        >>> ball = np.sum((np.indices((9, 9, 9)) - 4) ** 2, axis=0) < 10
        >>> settings = ComponentSettings()
        >>> Components.measure(ball.astype(int), (1, 1, 1), settings.h_maxima_mm).look_single(settings).tolist()
        [True]
        """
        return ~np.any(list(self.faults(settings).values()), axis=0)


def voxels_in_hull(coordinates: np.ndarray) -> int:
    """How many voxel centers lie in the convex hull of some voxel centers, up to 0.01 voxels outside of it.

    A digital image of a convex body fills its hull at any voxel size, since only voxels are counted.

    Args:
        coordinates: (n, dim) index of each voxel, at least one, in C order.

    >>> voxels_in_hull(np.array([[0, 0], [0, 3], [3, 0]]))
    10
    """
    dim = coordinates.shape[1]
    at = coordinates - coordinates.min(axis=0)
    around = THICKNESS * np.concatenate([np.eye(dim), -np.eye(dim)])
    planes = ConvexHull((line_ends(at)[:, None] + around).reshape(-1, dim)).equations
    # Line by line along the last axis: each plane bounds it above or below, or leaves it out.
    lines = np.stack(np.meshgrid(*map(np.arange, at.max(axis=0)[:-1] + 1), indexing="ij"), axis=-1).reshape(-1, dim - 1)
    lowest, highest = np.full(len(lines), -np.inf), np.full(len(lines), np.inf)
    for *across, along, offset in planes:
        excess = lines @ np.array(across) + offset
        if abs(along) < ROUNDING:
            highest[excess > ROUNDING] = -np.inf
        elif along > 0:
            np.minimum(highest, -excess / along, out=highest)
        else:
            np.maximum(lowest, -excess / along, out=lowest)
    n_voxels = np.floor(highest + ROUNDING) - np.ceil(lowest - ROUNDING) + 1
    return int(np.maximum(n_voxels, 0).sum())


def _n_maxima(coordinates: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray, h_mm: float) -> int:
    maxima = DepthBox.of(coordinates, shape, spacing_mm).maxima(h_mm, 3 ** len(shape) - 1)
    return max(1, int(maxima.max()))
