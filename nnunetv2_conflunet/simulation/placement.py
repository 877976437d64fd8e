"""Placement of lesions in tissue, one by one: confluent units touch, all others keep a distance."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.growth import Unit, grow
from nnunetv2_conflunet.simulation.image_grid import Triple
from nnunetv2_conflunet.simulation.lesions import Component, Shape, ball_radius_mm, random_shape

CUBE = np.ones((3, 3, 3), bool)
CENTER_TRIES, NEIGHBOR_TRIES, COMPONENT_TRIES = 12, 24, 5
PREFERENCE_TRIES = 8
# Tried in this order, since round shapes fit where long ones do not.
ROUNDNESS = 0.0, 0.3, 0.6, 1.0
# Minimum number of voxel faces shared by confluent units, so that they touch under every connectivity.
MIN_CONTACT_FACES = 3


@dataclass(frozen=True)
class Tissue:
    """Where lesions may be; arrays are (Z, Y, X).

    Attributes:
        spacing_mm: voxel size along each axis.
        allowed: bool, voxels that a lesion may occupy.
        densities: two float32 maps, proportional to the probability of a lesion's middle: for periventricular lesions
            and for all others.
        reluctance: float32, resistance to the spread of a lesion: 0 in white matter, about 1 in gray matter. None: 0.
        ventricle_distance_mm: float32; its gradient is the direction of periventricular lesions. None: no preferred
            direction.
        cluster_preference: float32, clusters spread toward high values. None: in any direction.
    """

    spacing_mm: Triple
    allowed: np.ndarray
    densities: tuple[np.ndarray, np.ndarray]
    reluctance: np.ndarray | None = None
    ventricle_distance_mm: np.ndarray | None = None
    cluster_preference: np.ndarray | None = None


@dataclass
class Placement:
    """The lesions of one image.

    Attributes:
        instances: (Z, Y, X) int32, ids from 1 in the order of `units`.
        units: the lesions.
        missed: number of planned lesions that could not be placed.
    """

    instances: np.ndarray
    units: list[Unit] = field(default_factory=list)
    missed: int = 0


def place_lesions(
    plan: list[Component],
    tissue: Tissue,
    rng: np.random.Generator,
    make_shape: Callable[..., Shape] = random_shape,
) -> Placement:
    """Place the lesions of a plan in tissue.

    Every instance is 6-connected, has at least 14 mm3 and 3 mm along each axis, and contains its own center of mass.
    Units of one component share faces; between components there is at least one background voxel, also under
    26-connectivity. A near-miss that does not fit next to its neighbor is placed elsewhere.

    Args:
        plan: the components, see :func:`.lesions.draw_plan`.
        tissue: where they may be.
        rng: source of positions and shapes.
        make_shape: ``make_shape(rng, direction, roundness)`` returns the shape of one unit.

    Returns:
        The lesions. A component that does not fit is left out and its units are counted as missed.

    Example:
        >>> everywhere = np.ones((30, 30, 30), np.float32)
        >>> tissue = Tissue((1, 1, 1), everywhere > 0, (everywhere, everywhere))
        >>> placement = place_lesions([Component((60.0, 40.0))], tissue, np.random.default_rng(0))
        >>> len(placement.units), placement.missed
        (2, 0)
    """
    placer = _Placer(tissue, rng, make_shape)
    for component in plan:
        placer.add(component)
    return placer.placement


class _Placer:
    """State during the placement of the components."""

    def __init__(self, tissue: Tissue, rng: np.random.Generator, make_shape: Callable[..., Shape]) -> None:
        self.tissue, self.rng, self.make_shape = tissue, rng, make_shape
        self.placement = Placement(np.zeros(tissue.allowed.shape, np.int32))
        self.spill = tissue.allowed.copy()
        # Excludes the neighborhood of finished components as well.
        self.free = tissue.allowed.copy()
        self.cumulative = [np.cumsum(density, dtype=np.float64, axis=None) for density in tissue.densities]
        # Voxels of the current component.
        self.own = np.zeros(tissue.allowed.shape, bool)
        self.last: list[Unit] = []

    def add(self, component: Component) -> None:
        """Place all units of a component, or none."""
        for attempt in range(COMPONENT_TRIES):
            beside = component.near_miss and attempt < COMPONENT_TRIES - 2
            units = self._place(component.volumes_mm3, self.last if beside else [])
            if units:
                break
        else:
            self.placement.missed += len(component.volumes_mm3)
        for unit in units:
            self.own[unit.box] = False
            self.free[unit.box] &= ~ndimage.binary_dilation(unit.member, CUBE)
            self.placement.instances[unit.box][unit.member] = len(self.placement.units) + 1
            self.placement.units.append(unit)
        self.last = units

    def _place(self, volumes_mm3: tuple[float, ...], anchors: list[Unit]) -> list[Unit]:
        """Units of one component, largest first; an empty list if one of them does not fit."""
        units: list[Unit] = []
        for volume_mm3 in sorted(volumes_mm3, reverse=True):
            neighbors = units or anchors
            tries = NEIGHBOR_TRIES if neighbors else CENTER_TRIES
            for attempt in range(tries):
                roundness = ROUNDNESS[attempt * len(ROUNDNESS) // tries]
                if neighbors:
                    neighbor = neighbors[self.rng.integers(len(neighbors))]
                    center, direction = self._preferred_beside(neighbor, volume_mm3, gap=not units), None
                else:
                    center, direction = self._draw_center(volume_mm3, len(volumes_mm3) > 1)
                shape = self.make_shape(self.rng, direction, roundness)
                unit = grow(
                    shape, volume_mm3, center, self.tissue.spacing_mm, self.free, self.spill,
                    reluctance=self.tissue.reluctance,
                )  # fmt: skip
                if unit is not None and self._is_good(unit, units, anchors):
                    break
            else:
                for unit in units:
                    self._mark(unit, False)
                return []
            units.append(unit)
            self._mark(unit, True)
        return units

    def _mark(self, unit: Unit, taken: bool) -> None:
        self.own[unit.box][unit.member] = taken
        self.free[unit.box][unit.member] = not taken
        self.spill[unit.box][unit.member] = not taken

    def _draw_center(self, volume_mm3: float, is_cluster: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """A position in voxels, drawn from a density, and the direction of a periventricular lesion."""
        is_periventricular = _is_periventricular(volume_mm3, is_cluster, self.rng)
        cumulative = self.cumulative[0 if is_periventricular else 1]
        position = np.searchsorted(cumulative, self.rng.random() * cumulative[-1], side="right")
        voxel = np.array(np.unravel_index(min(position, cumulative.size - 1), self.free.shape))
        center = voxel + self.rng.uniform(-0.5, 0.5, 3)
        distance = self.tissue.ventricle_distance_mm
        if not is_periventricular or distance is None:
            return center, None
        # Away from the ventricles, since periventricular lesions follow the veins (Dawson's fingers).
        part = distance[tuple(slice(max(0, v - 1), v + 2) for v in voxel)]
        slopes = [(np.take(part, -1, axis) - np.take(part, 0, axis)).mean() for axis in range(3)]
        return center, np.array(slopes) / self.tissue.spacing_mm

    def _preferred_beside(self, unit: Unit, volume_mm3: float, gap: bool) -> np.ndarray:
        """A position next to a unit; within a cluster, the one that the tissue prefers among several."""
        preference = self.tissue.cluster_preference
        if gap or preference is None:
            return self._beside(unit, volume_mm3, gap)
        centers = [self._beside(unit, volume_mm3, gap) for _ in range(PREFERENCE_TRIES)]
        voxels = [np.clip(np.round(c).astype(int), 0, np.array(preference.shape) - 1) for c in centers]
        return centers[int(np.argmax([preference[tuple(v)] for v in voxels]))]

    def _beside(self, unit: Unit, volume_mm3: float, gap: bool) -> np.ndarray:
        """A position in voxels, outside a unit's surface, for the middle of another lesion."""
        spacing = np.asarray(self.tissue.spacing_mm)
        voxels = np.argwhere(unit.member)
        direction = self.rng.standard_normal(3)
        direction /= np.sqrt((direction**2).sum())
        offsets_mm = (voxels - voxels.mean(axis=0)) * spacing
        along_mm = (offsets_mm * direction).sum(axis=1)
        # The outermost voxel near the line from the unit's middle in that direction.
        aside_mm = np.sqrt(np.maximum((offsets_mm**2).sum(axis=1) - along_mm**2, 0))
        surface = voxels[(along_mm - 2 * aside_mm).argmax()] + [s.start for s in unit.box]
        radius_mm = ball_radius_mm(volume_mm3)
        outward_mm = radius_mm * self.rng.uniform(0.6, 0.95)
        if gap:
            outward_mm = radius_mm * self.rng.uniform(0.8, 1.2) + 1.0
        return surface + direction * outward_mm / spacing

    def _is_good(self, unit: Unit, units: list[Unit], anchors: list[Unit]) -> bool:
        """Whether a unit is placed according to the plan."""
        if not unit.member[tuple(np.argwhere(unit.member).mean(axis=0).round().astype(int))]:
            return False
        if units:
            return self._touches(unit)
        return not anchors or self._is_near(unit)

    def _touches(self, unit: Unit) -> bool:
        """Whether a unit shares enough faces with the others of its component."""
        count = 0
        for axis in range(3):
            first, second = (np.moveaxis(mask, axis, 0) for mask in (unit.member, self.own[unit.box]))
            count += int(np.count_nonzero(first[1:] & second[:-1]) + np.count_nonzero(first[:-1] & second[1:]))
        return count >= MIN_CONTACT_FACES

    def _is_near(self, unit: Unit) -> bool:
        """Whether exactly one background voxel is between a unit and a finished component."""
        beside_others = self.tissue.allowed[unit.box] & ~self.free[unit.box]
        return bool((ndimage.binary_dilation(beside_others, CUBE) & unit.member).any())


def _is_periventricular(volume_mm3: float, is_cluster: bool, rng: np.random.Generator) -> bool:
    """Draw whether a lesion is periventricular, which is more likely for large lesions and clusters.

    In the masks of Lesjak et al. 2017, 5 % of the components below 30 mm3, 21 % of those of 100-500 mm3 and 96 % of
    those above 2 mL come within 3 mm of the ventricles.
    """
    share = np.interp(np.log(volume_mm3), np.log([14, 100, 500, 2000]), [0.08, 0.15, 0.35, 0.6])
    return bool(rng.random() < share + 0.25 * is_cluster)
