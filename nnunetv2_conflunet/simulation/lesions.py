"""Number, volume, confluence and shape of a patient's lesions."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri

from nnunetv2_conflunet.postprocessing.size_filter import PAPER_LIMITS
from nnunetv2_conflunet.utilities.options import option

# Lesions of the consensus masks of Lesjak et al. 2017 (doi:10.1007/s12021-017-9348-7), measured with 26-connectivity
# on components of at least 14 mm3 and 3 mm along each axis: volume log-normal, left-truncated at 14 mm3.
LOG_VOLUME_MEAN, LOG_VOLUME_SD = 3.26, 1.43
# ConfLUNet (Wynen et al. 2024) removes instances below these sizes.
MIN_VOLUME_MM3, MIN_EXTENT_MM = PAPER_LIMITS.min_volume_mm3, PAPER_LIMITS.min_extent_mm
MAX_UNIT_VOLUME_MM3 = 2000.0
# Lesions per patient in the same masks: mean 58, variance 2483 = mean + mean^2 / dispersion.
MEAN_LESIONS, COUNT_DISPERSION = 58.0, 1.4
# Ratios of semi-axes, long to middle and middle to short, of the same lesions: median, and SD of the logarithm.
AXIS_RATIOS = (1.55, 0.28), (1.40, 0.20)
MAX_CLUSTER_UNITS = 8


class Shape(Protocol):
    """The outline of a lesion."""

    def level(self, offsets_mm: np.ndarray, volume_mm3: float) -> np.ndarray:
        """Levels (...) at positions (..., 3) float32 in mm relative to the middle of a lesion with this volume.

        They rise from 0 in the middle to about 1 at the outline.
        """

    def reach_mm(self, volume_mm3: float) -> float:
        """Radius in mm of a ball around the middle that contains the lesion."""


@dataclass(frozen=True)
class IrregularEllipsoid:
    """An ellipsoid with a surface deformed by a few plane waves.

    Attributes:
        axes: (3,) relative semi-axes with product 1, longest first.
        rotation: (3, 3), columns are the directions of the axes.
        waves: (K, 3) wave vectors in units of the lesion's size.
        phases: (K,) in rad.
        amplitudes: (K,) relative to the radius; their sum is below 1.
    """

    axes: np.ndarray
    rotation: np.ndarray
    waves: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray

    def level(self, offsets_mm: np.ndarray, volume_mm3: float) -> np.ndarray:
        """See :class:`Shape`."""
        radius_mm = ball_radius_mm(volume_mm3)
        # einsum without optimization avoids BLAS, whose rounding may depend on the number of threads.
        scale = (self.rotation / (radius_mm * self.axes)).astype(np.float32)
        first, second, third = np.moveaxis(np.einsum("...i,ij->...j", offsets_mm, scale), -1, 0)
        bend = np.ones(first.shape, np.float32)
        for wave, phase, amplitude in zip(*map(np.float32, (self.waves, self.phases, self.amplitudes)), strict=True):
            bend += amplitude * np.cos(wave[0] * first + wave[1] * second + wave[2] * third + phase)
        return np.sqrt(first**2 + second**2 + third**2) * bend

    def reach_mm(self, volume_mm3: float) -> float:
        """See :class:`Shape`."""
        return ball_radius_mm(volume_mm3) * float(self.axes[0]) * 1.3 + 1.5


def ball_radius_mm(volume_mm3: float) -> float:
    """Radius of a ball with this volume."""
    return (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3)


def random_shape(
    rng: np.random.Generator, direction: np.ndarray | None = None, roundness: float = 0.0
) -> IrregularEllipsoid:
    """An irregular ellipsoid.

    Args:
        rng: source of the shape.
        direction: (3,) approximate direction of the long axis. None: any direction.
        roundness: 0 for the elongation seen in patients, 1 for a nearly smooth ball.

    Example:
        >>> shape = random_shape(np.random.default_rng(0))
        >>> shape.level(np.zeros((1, 3), np.float32), 100.0).tolist()
        [0.0]
    """
    stretch = 1 - np.clip(roundness, 0, 1)
    (long, long_sd), (middle, middle_sd) = AXIS_RATIOS
    long = np.exp(stretch * max(0.0, rng.normal(np.log(long), long_sd)))
    middle = np.exp(stretch * max(0.0, rng.normal(np.log(middle), middle_sd)))
    axes = np.array([long * middle, middle, 1.0])
    rotation = random_axes(rng, direction)
    count = 5
    amplitudes = rng.uniform(0.3, 1.0, count)
    amplitudes *= (0.15 + 0.35 * stretch) / amplitudes.sum()
    return IrregularEllipsoid(
        axes=axes / np.prod(axes) ** (1 / 3),
        rotation=rotation,
        waves=rng.normal(0, 1.8, (count, 3)),
        phases=rng.uniform(0, 2 * np.pi, count),
        amplitudes=amplitudes,
    )


def random_axes(rng: np.random.Generator, direction: np.ndarray | None) -> np.ndarray:
    """Orthonormal right-handed columns (3, 3); the first is close to the direction (3,), if one is given."""
    first = rng.standard_normal(3)
    if direction is not None and np.any(direction):
        first = direction / np.sqrt((direction**2).sum()) + 0.25 * first
    first /= np.sqrt((first**2).sum())
    second = np.cross(first, rng.standard_normal(3))
    second /= np.sqrt((second**2).sum())
    return np.stack([first, second, np.cross(first, second)], axis=1)


@dataclass(frozen=True)
class Component:
    """Lesions that become one connected component.

    Attributes:
        volumes_mm3: volume of each unit; a single one for a lesion that touches no other.
        near_miss: whether it lies one background voxel away from the previous component in the plan.
    """

    volumes_mm3: tuple[float, ...]
    near_miss: bool = False


@dataclass(frozen=True)
class LesionStatistics:
    """The distributions from which a cohort's lesions are drawn.

    Attributes:
        mean_lesions: mean number of lesions of a patient who has any.
        dispersion: of the negative binomial count; large values tend to a Poisson distribution.
        confluent_share: fraction of lesions that touch another lesion, 0 to 1.
        near_miss_share: fraction of lesions placed one voxel away from another; chance adds more, as in patients.
    """

    mean_lesions: float = MEAN_LESIONS
    dispersion: float = option(COUNT_DISPERSION, "dispersion of the negative binomial number of lesions")
    confluent_share: float = option(0.2, "fraction of lesions that touch another lesion", metavar="SHARE")
    near_miss_share: float = option(
        0.1, "fraction of lesions placed one voxel away from another; chance adds more", metavar="SHARE"
    )


def draw_plan(statistics: LesionStatistics, rng: np.random.Generator) -> list[Component]:
    """The lesions of one patient who has at least one: their sizes and which of them touch.

    Larger lesions are more likely to be part of a cluster (probability proportional to volume^0.8), and only clusters
    are larger than 2 mL.

    Returns:
        The components, largest first, each near-miss directly after its neighbor.

    Example:
        >>> plan = draw_plan(LesionStatistics(mean_lesions=20), np.random.default_rng(0))
        >>> sum(len(component.volumes_mm3) for component in plan)
        7
    """
    shape = statistics.dispersion
    count = max(1, int(rng.negative_binomial(shape, shape / (shape + statistics.mean_lesions))))
    volumes = draw_volumes_mm3(count, rng)
    confluent = int(statistics.confluent_share * count + rng.random())
    if confluent == 1:
        # A single lesion cannot be confluent: take two or none, so that the fraction is right on average.
        confluent = 2 * int(rng.integers(2)) if count > 1 else 0
    weights = volumes**0.8
    chosen = rng.choice(count, size=min(confluent, count), replace=False, p=weights / weights.sum())
    single = np.setdiff1d(np.arange(count), chosen)
    components = [Component(tuple(float(v) for v in volumes[group])) for group in _split(chosen, rng)]
    components += [Component((float(v),)) for v in volumes[single]]
    components.sort(key=lambda component: -sum(component.volumes_mm3))
    return _with_near_misses(components, statistics.near_miss_share * count, rng)


def draw_volumes_mm3(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) volumes in mm3, log-normal between 14 mm3 and 2 mL."""
    low, high = (ndtr((np.log(v) - LOG_VOLUME_MEAN) / LOG_VOLUME_SD) for v in (MIN_VOLUME_MM3, MAX_UNIT_VOLUME_MM3))
    return np.exp(LOG_VOLUME_MEAN + LOG_VOLUME_SD * ndtri(rng.uniform(low, high, count)))


def _split(units: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Divide shuffled units into clusters of two or more: mostly pairs, at most nine."""
    clusters, start = [], 0
    while start < len(units):
        size = min(1 + int(rng.geometric(0.55)), MAX_CLUSTER_UNITS, len(units) - start)
        # A single unit that would be left over joins the last cluster.
        size += len(units) - start - size == 1
        clusters.append(units[start : start + size])
        start += size
    return clusters


def _with_near_misses(components: list[Component], lesions: float, rng: np.random.Generator) -> list[Component]:
    """Turn single lesions into near-misses of others until about `lesions` lesions are part of one."""
    pairs = int(lesions / 2 + rng.random())
    single = [index for index, component in enumerate(components) if len(component.volumes_mm3) == 1]
    moved = {int(index) for index in rng.permutation(single)[: min(pairs, len(components) // 2)]}
    anchors = [index for index in range(len(components)) if index not in moved]
    neighbor_of = dict(zip(rng.permutation(anchors).tolist(), sorted(moved), strict=False))
    plan = []
    for index in anchors:
        plan.append(components[index])
        if index in neighbor_of:
            plan.append(Component(components[neighbor_of[index]].volumes_mm3, near_miss=True))
    return plan
