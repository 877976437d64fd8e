"""The voxel grid of a simulated image and smooth random fields on it."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy.interpolate import BSpline


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
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]

    @classmethod
    def around(
        cls, center_mm: tuple[float, ...], size_mm: tuple[float, ...], spacing_mm: tuple[float, float, float]
    ) -> "Grid":
        """The grid of about `size_mm` whose middle is `center_mm`; the size is rounded to whole voxels."""
        shape = tuple(max(1, round(s / d)) for s, d in zip(size_mm, spacing_mm, strict=True))
        origin = tuple(float(c - d * (n - 1) / 2) for c, d, n in zip(center_mm, spacing_mm, shape, strict=True))
        return cls(shape, tuple(float(d) for d in spacing_mm), origin)

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(np.prod(self.spacing_mm))

    def refined(self, factors: tuple[int, ...]) -> "Grid":
        """The grid with every voxel cut into `factors` parts along each axis, covering the same box."""
        spacing = tuple(d / f for d, f in zip(self.spacing_mm, factors, strict=True))
        origin = tuple(o - d / 2 + s / 2 for o, d, s in zip(self.origin_mm, self.spacing_mm, spacing, strict=True))
        return Grid(tuple(n * f for n, f in zip(self.shape, factors, strict=True)), spacing, origin)

    def axes_mm(self) -> tuple[np.ndarray, ...]:
        """World coordinates in mm of the voxel centers along each axis, one 1-D array an axis."""
        return tuple(o + d * np.arange(n) for o, d, n in zip(self.origin_mm, self.spacing_mm, self.shape, strict=True))

    def sitk_properties(self) -> dict:
        """What nnU-Net's SimpleITK reader would return for a file on this grid."""
        z, y, x = self.origin_mm
        # SimpleITK's world is LPS and its order (x, y, z).
        return {
            "sitk_stuff": {
                "spacing": self.spacing_mm[::-1],
                "origin": (-x, -y, z),
                "direction": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0),
            },
            "spacing": self.spacing_mm,
        }

    def sitk_image(self, array: np.ndarray) -> sitk.Image:
        """`array` (z, y, x) as a SimpleITK image with this geometry."""
        stuff = self.sitk_properties()["sitk_stuff"]
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(stuff["spacing"])
        image.SetOrigin(stuff["origin"])
        image.SetDirection(stuff["direction"])
        return image


def smooth_field(grid: Grid, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field: cubic B-spline with independent normal coefficients.

    Args:
        grid: where to evaluate it.
        scale_mm: distance of the control points; structures are about twice that size.
        rng: source of the coefficients.

    Returns:
        (Z, Y, X) float32 with mean 0 and standard deviation of about 1.
    """
    bases = []
    for axis_mm in grid.axes_mm():
        intervals = max(1, int(np.ceil((axis_mm[-1] - axis_mm[0]) / scale_mm)))
        knots = axis_mm[0] + scale_mm * np.arange(-3, intervals + 4)
        bases.append(BSpline.design_matrix(axis_mm, knots, 3).toarray())
    field = rng.standard_normal([basis.shape[1] for basis in bases])
    # einsum without optimization does not call BLAS, whose rounding may depend on the number of threads.
    for axis, basis in enumerate(bases):
        field = np.moveaxis(np.einsum("ai,ijk->ajk", basis, np.moveaxis(field, axis, 0)), 0, axis)
    # The squares of the cubic B-spline's weights sum to 0.479 on average along each axis.
    return (field / 0.479**1.5).astype(np.float32)


def block_mean(values: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Mean over blocks of `factors` voxels along the last three axes; the inverse of :meth:`Grid.refined`."""
    if tuple(factors) == (1, 1, 1):
        return values
    *rest, z, y, x = values.shape
    a, b, c = factors
    return values.reshape(*rest, z // a, a, y // b, b, x // c, c).mean(axis=(-5, -3, -1), dtype=np.float32)
