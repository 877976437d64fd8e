"""How deep voxels lie inside an object: the distance transform, computed in the object's box."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, generate_binary_structure
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction

from nnunetv2_conflunet.postprocessing.voxels import STRUCTURE


@dataclass(frozen=True, eq=False)
class DepthBox:
    """Depth of the voxels of one object, in a box around it.

    Attributes:
        depth_mm: float64, distance of each voxel of the object to the nearest voxel outside of it, from center to
            center; 0 outside, infinite if nothing lies outside. Nothing is known beyond the border of the image, so it
            counts as neither.
        at: index of each voxel of the object in the box, one array for each axis.

    >>> found = DepthBox.of(np.array([[0, 1], [0, 2], [0, 3]]), (1, 5), np.ones(2))
    >>> found.depth_mm, found.of_voxels
    (array([[0., 1., 2., 1., 0.]]), array([1., 2., 1.]))
    """

    depth_mm: np.ndarray
    at: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, coordinates: np.ndarray, shape: tuple[int, ...], spacing_mm: np.ndarray) -> "DepthBox":
        """Measure one object.

        Args:
            coordinates: (n, dim) its voxels, at least one.
            shape: of the image.
            spacing_mm: (dim,) voxel size.
        """
        # A margin of one voxel, where the image has one: the nearest voxel outside is never farther away.
        first = np.maximum(coordinates.min(axis=0) - 1, 0)
        last = np.minimum(coordinates.max(axis=0) + 1, np.array(shape) - 1)
        inside, at = np.zeros(last - first + 1, bool), tuple((coordinates - first).T)
        inside[at] = True
        if inside.all():
            return cls(np.full(inside.shape, np.inf), at)
        return cls(distance_transform_edt(inside, sampling=spacing_mm), at)

    @property
    def of_voxels(self) -> np.ndarray:
        """(n,) depth of each voxel of the object."""
        return self.depth_mm[self.at]

    def maxima(self, h_mm: float, connectivity: int) -> np.ndarray:
        """The extended h-maxima of the depth (Soille, Morphological Image Analysis, 2nd ed., section 6.3.4).

        These are the regional maxima that the depth has after it was lowered by `h_mm` and reconstructed under itself:
        every path between two of them falls by more than `h_mm` below the lower one.

        Args:
            h_mm: positive.
            connectivity: number of neighbors, of the image's dimension.

        Returns:
            1..K in the voxels of each maximum, 0 elsewhere, on the grid of `depth_mm`. There is none in an object
            without a voxel deeper than `h_mm`, and none in one outside of which nothing is known.

        >>> hourglass = np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]])
        >>> DepthBox.of(np.argwhere(hourglass), (3, 7), np.ones(2)).maxima(0.5, 8).tolist()
        [[1, 0, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 0, 2]]
        """
        if not h_mm < self.of_voxels.max() < np.inf:
            return np.zeros(self.depth_mm.shape, np.int64)
        footprint = generate_binary_structure(self.depth_mm.ndim, STRUCTURE[connectivity])
        lowered = reconstruction(self.depth_mm - h_mm, self.depth_mm, footprint=footprint)
        return label(local_maxima(lowered, footprint=footprint), connectivity=STRUCTURE[connectivity])
