"""The settings that are tried."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import PAPER_LIMITS

# What is searched, in the order in which the points of a grid change: the last one fastest.
SEARCHED = (
    *("heatmap_threshold", "window_mm", "min_prominence", "min_consistency"),
    *("min_volume_mm3", "min_extent_mm", "min_area_mm2"),
)
# Of the limits that the size filter has in space or in a plane, that which does not act there.
WITHOUT_EFFECT = {2: "min_volume_mm3", 3: "min_area_mm2"}
# Smallest areas to try in a plane, in pixels of the network's grid: none, a speck of 3 x 3, and larger ones.
AREAS_PIXELS = (0, 9, 20, 40)


@dataclass(frozen=True)
class Grid:
    """Values to try of each setting; every combination is a point.

    Attributes:
        heatmap_threshold: lowest value of a center.
        window_mm: full width of the window in which a center is the highest voxel.
        min_prominence: lowest share of its height by which a center rises above the way to a higher one.
        min_consistency: lowest distance from where a center's own offset points to another, in units of that to itself.
        min_volume_mm3: limits of the size filter on predictions; does not act in a plane.
        min_extent_mm: likewise, in both.
        min_area_mm2: likewise; acts in a plane only.

    >>> default = InstantiationSettings()
    >>> grid = Grid((0.3,), (3.0, 5.0), (0.0,), (0.0,), (), ()).around(default)
    >>> grid.heatmap_threshold, len(grid.points(default))
    ([0.1, 0.3], 4)
    """

    heatmap_threshold: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    window_mm: Sequence[float] = (3.0, 5.0, 7.0)
    min_prominence: Sequence[float] = (0.0, 0.05, 0.1, 0.2)
    min_consistency: Sequence[float] = (0.0, 1.25, 2.0)
    min_volume_mm3: Sequence[float] = (PAPER_LIMITS.min_volume_mm3, 20.0, 30.0)
    min_extent_mm: Sequence[float] = (PAPER_LIMITS.min_extent_mm, 4.0)
    min_area_mm2: Sequence[float] = (0.0,)

    @classmethod
    def of_planes(cls, pixel_mm2: float) -> "Grid":
        """The grid for two-dimensional images: areas to try instead of volumes.

        Args:
            pixel_mm2: area of a pixel of the network's grid.
        """
        return cls(min_volume_mm3=(), min_area_mm2=tuple(n * pixel_mm2 for n in AREAS_PIXELS))

    def around(self, default: InstantiationSettings) -> "Grid":
        """The grid with ascending values and with those of the default among them."""
        values = {name: {*map(float, getattr(self, name)), float(getattr(default, name))} for name in SEARCHED}
        return Grid(**{name: sorted(tried) for name, tried in values.items()})

    def points(self, default: InstantiationSettings) -> list[InstantiationSettings]:
        """Every combination; what is not searched stays as it is by default.

        Raises:
            InputError: a value that is not possible.
        """
        combinations = product(*(getattr(self, name) for name in SEARCHED))
        return [replace(default, **dict(zip(SEARCHED, values, strict=True))) for values in combinations]

    def ends_reached(self, chosen: InstantiationSettings, default: InstantiationSettings) -> list[str]:
        """The settings whose chosen value is another than the default and the lowest or highest of its list.

        0 ends no list: nothing lies below.
        """
        return [
            name
            for name in SEARCHED
            if (value := getattr(chosen, name)) != getattr(default, name)
            and value in (min(getattr(self, name)) or None, max(getattr(self, name)))
        ]


def order_of_preference(points: list[InstantiationSettings], default: InstantiationSettings) -> list[int]:
    """Positions of the points from the one to take first among equally good ones.

    The fewer settings differ from the default the better; of equally many the first of the grid.

    >>> default = InstantiationSettings()
    >>> order_of_preference([replace(default, window_mm=5.0), default], default)
    [1, 0]
    """
    changes = [sum(getattr(point, name) != getattr(default, name) for name in SEARCHED) for point in points]
    return sorted(range(len(points)), key=changes.__getitem__)
