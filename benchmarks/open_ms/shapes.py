"""Outlines of lesions taken from the connected components of real masks."""

from collections.abc import Callable
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import signed_distance
from nnunetv2_conflunet.simulation.lesions import (
    MAX_UNIT_VOLUME_MM3,
    MIN_EXTENT_MM,
    MIN_VOLUME_MM3,
    Shape,
    ball_radius_mm,
    random_axes,
)
from nnunetv2_conflunet.utilities.errors import InputError

# A lesion takes its shape from one of this many components of similar volume.
SIMILAR = 15
# Smooths the voxel steps of the outline.
SMOOTHING_MM = 0.8
MARGIN = 3


@dataclass(frozen=True)
class RealComponent:
    """One component of a real mask on a 1 mm grid.

    Attributes:
        distance_mm: (Z, Y, X) float32, distance to its surface, negative inside, with a margin around it.
        middle: (3,) its deepest voxel.
        axes: (3, 3), columns are its principal axes, the longest first.
        volume_mm3: its volume.
        radius_mm: distance from the middle to its farthest voxel.
    """

    distance_mm: np.ndarray
    middle: np.ndarray
    axes: np.ndarray
    volume_mm3: float
    radius_mm: float


def real_components(mask: np.ndarray) -> list[RealComponent]:
    """The components of a mask from which lesion shapes can be taken.

    Args:
        mask: (Z, Y, X) bool lesions on a 1 mm grid.

    Returns:
        Those (26-connectivity) of 14 mm3 to 2 mL and at least 3 mm along each axis.
    """
    labels = cc3d.connected_components(np.pad(mask, MARGIN).astype(np.uint8), connectivity=26)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if min(s.stop - s.start for s in box) < MIN_EXTENT_MM:
            continue
        component = labels[tuple(slice(s.start - MARGIN, s.stop + MARGIN) for s in box)] == label
        if MIN_VOLUME_MM3 <= component.sum() <= MAX_UNIT_VOLUME_MM3:
            found.append(_component(component))
    return found


def _component(component: np.ndarray) -> RealComponent:
    # The surface is half a voxel away from the voxel centers.
    distance = signed_distance(component)
    distance -= 0.5 * np.sign(distance)
    distance = ndimage.gaussian_filter(distance, SMOOTHING_MM)
    middle = np.array(np.unravel_index(distance.argmin(), distance.shape))
    voxels = np.argwhere(component)
    centered = voxels - voxels.mean(axis=0)
    # einsum without optimization does not call BLAS, whose rounding may depend on the number of threads.
    _, vectors = np.linalg.eigh(np.einsum("ni,nj->ij", centered, centered))
    radius = float(np.sqrt(((voxels - middle) ** 2).sum(axis=1).max()))
    return RealComponent(distance, middle, vectors[:, ::-1], float(len(voxels)), radius)


@dataclass(frozen=True)
class RealShape:
    """The outline of a real lesion of similar volume, rotated and scaled; see :class:`.lesions.Shape`.

    Attributes:
        components: what to choose from, sorted by volume.
        choice: in [0, 1), which of the :data:`SIMILAR` components nearest in volume.
        axes: (3, 3), columns are the directions of the component's principal axes; may mirror it.
        roundness: 0 for the original outline, 1 for a ball.
    """

    components: tuple[RealComponent, ...]
    choice: float
    axes: np.ndarray
    roundness: float = 0.0

    def level(self, offsets_mm: np.ndarray, volume_mm3: float) -> np.ndarray:
        """0 at the deepest point of the component, 1 at its surface, linear in the distance to the surface."""
        component, scale = self._chosen(volume_mm3)
        turn = (np.einsum("ik,jk->ij", self.axes, component.axes) / scale).astype(np.float32)
        positions = np.einsum("...i,ij->...j", offsets_mm, turn) + component.middle.astype(np.float32)
        inside = np.clip(positions, 0, np.array(component.distance_mm.shape, np.float32) - 1)
        distance = ndimage.map_coordinates(component.distance_mm, np.moveaxis(inside, -1, 0), order=1, mode="nearest")
        # Outside the box the level keeps rising.
        distance = distance + np.sqrt(((positions - inside) ** 2).sum(axis=-1))
        lowest = component.distance_mm[tuple(component.middle)]
        ball = np.sqrt((offsets_mm**2).sum(axis=-1)) / ball_radius_mm(volume_mm3)
        return (1 - self.roundness) * (distance - lowest) / -lowest + self.roundness * ball

    def reach_mm(self, volume_mm3: float) -> float:
        """Radius in mm of a ball around the middle that holds the lesion."""
        component, scale = self._chosen(volume_mm3)
        return component.radius_mm * scale + 1.5

    def _chosen(self, volume_mm3: float) -> tuple[RealComponent, float]:
        """The chosen component and its scale factor."""
        near = np.abs([np.log(c.volume_mm3 / volume_mm3) for c in self.components]).argsort(kind="stable")[:SIMILAR]
        component = self.components[near[int(self.choice * len(near))]]
        return component, (volume_mm3 / component.volume_mm3) ** (1 / 3)


def shape_maker(components: list[RealComponent]) -> Callable[..., Shape]:
    """A `make_shape` for :func:`.placement.place_lesions` that takes its shapes from real components.

    Raises:
        InputError: there are none.
    """
    if not components:
        raise InputError("The masks hold no component of 14 mm3 to 2 mL and at least 3 mm along each axis.")
    chosen = tuple(sorted(components, key=lambda component: component.volume_mm3))

    def make_shape(rng: np.random.Generator, direction: np.ndarray | None = None, roundness: float = 0.0) -> Shape:
        choice, axes = float(rng.random()), random_axes(rng, direction)
        # Half of them mirrored.
        axes[:, 2] *= rng.choice([-1.0, 1.0])
        return RealShape(chosen, choice, axes, roundness)

    return make_shape
