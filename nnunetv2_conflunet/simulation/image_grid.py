"""The voxel grid of a simulated image and smooth random fields on it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

# SimpleITK's world is LPS and its axes are (x, y, z): to the right, to the front, to the top.
DIRECTION = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """An axis-aligned grid in MNI space.

    All tuples are in nnU-Net's array order (z, y, x): z to the top, y to the front, x to the right.

    Attributes:
        shape: voxels along each axis.
        spacing_mm: voxel size along each axis.
        origin_mm: world position of the center of voxel (0, 0, 0).
    """

    shape: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple

    @classmethod
    def around(cls, center_mm: Triple, size_mm: Triple, spacing_mm: Triple) -> "Grid":
        """The grid of size `size_mm`, rounded to whole voxels, centered at `center_mm`.

        Example:
            >>> Grid.around((0, 0, 10), (4, 6, 8), (2, 2, 2))
            Grid(shape=(2, 3, 4), spacing_mm=(2.0, 2.0, 2.0), origin_mm=(-1.0, -2.0, 7.0))
        """
        z, y, x = (max(1, round(size / mm)) for size, mm in zip(size_mm, spacing_mm, strict=True))
        spacing_mm = triple(spacing_mm)
        origin = (c - mm * (n - 1) / 2 for c, mm, n in zip(center_mm, spacing_mm, (z, y, x), strict=True))
        return cls((z, y, x), spacing_mm, triple(origin))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    def refined(self, factors: tuple[int, int, int]) -> "Grid":
        """The grid with every voxel divided into `factors` parts along each axis, covering the same box."""
        spacing = triple(mm / factor for mm, factor in zip(self.spacing_mm, factors, strict=True))
        origin = (o - mm / 2 + part / 2 for o, mm, part in zip(self.origin_mm, self.spacing_mm, spacing, strict=True))
        z, y, x = (n * factor for n, factor in zip(self.shape, factors, strict=True))
        return Grid((z, y, x), spacing, triple(origin))

    def axes_mm(self) -> tuple[np.ndarray, ...]:
        """World coordinates in mm of the voxel centers, one 1-D array per axis."""
        return tuple(
            o + mm * np.arange(n) for o, mm, n in zip(self.origin_mm, self.spacing_mm, self.shape, strict=True)
        )

    def sitk_properties(self) -> dict:
        """The properties that nnU-Net's SimpleITK reader would return for a file on this grid."""
        z, y, x = self.origin_mm
        stuff = {"spacing": self.spacing_mm[::-1], "origin": (-x, -y, z), "direction": DIRECTION}
        return {"sitk_stuff": stuff, "spacing": self.spacing_mm}


def triple(values: Iterable[float]) -> Triple:
    """Three numbers as a tuple of floats."""
    z, y, x = map(float, values)
    return z, y, x


def enlarged(box: tuple[slice, ...], margin: int) -> tuple[slice, ...]:
    """A box enlarged by `margin` voxels on each side, clipped to the array by slicing.

    Example:
        >>> enlarged((slice(1, 4),), 2)
        (slice(0, 6, None),)
    """
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)


def smooth_field(grid: Grid, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field: cubic B-spline with independent normal coefficients.

    Args:
        grid: where to evaluate it.
        scale_mm: distance of the control points; structures are about twice that size.
        rng: source of the coefficients.

    Returns:
        (Z, Y, X) float32 with mean 0 and standard deviation of about 1.

    Example:
        >>> field = smooth_field(Grid((40, 40, 40), (1, 1, 1), (0, 0, 0)), 4.0, np.random.default_rng(0))
        >>> field.shape, bool(0.8 < field.std() < 1.2)
        ((40, 40, 40), True)
    """
    bases = []
    for axis_mm in grid.axes_mm():
        intervals = max(1, int(np.ceil((axis_mm[-1] - axis_mm[0]) / scale_mm)))
        knots = axis_mm[0] + scale_mm * np.arange(-3, intervals + 4)
        bases.append(BSpline.design_matrix(axis_mm, knots, 3).toarray())
    field = rng.standard_normal([basis.shape[1] for basis in bases])
    # einsum without optimization avoids BLAS, whose rounding may depend on the number of threads.
    for axis, basis in enumerate(bases):
        field = np.moveaxis(np.einsum("ai,ijk->ajk", basis, np.moveaxis(field, axis, 0)), 0, axis)
    # The squared weights of the cubic B-spline sum to 0.479 on average along each axis.
    return (field / 0.479**1.5).astype(np.float32)


def block_mean(values: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Mean over blocks of `factors` voxels along the last three axes; the inverse of :meth:`Grid.refined`."""
    if factors == (1, 1, 1):
        return values
    *rest, z, y, x = values.shape
    a, b, c = factors
    return values.reshape(*rest, z // a, a, y // b, b, x // c, c).mean(axis=(-5, -3, -1), dtype=np.float32)
