"""Watershed of the distance transform: touching convex objects are divided where they are narrow."""

import numpy as np
from scipy.ndimage import generate_binary_structure
from skimage.segmentation import watershed

from nnunetv2_conflunet.postprocessing.baselines.depth import DepthBox
from nnunetv2_conflunet.postprocessing.pieces import Assignment
from nnunetv2_conflunet.postprocessing.voxels import STRUCTURE, Voxels, groups, in_scan_order


def assign_by_watershed(
    voxels: Voxels,
    component: np.ndarray,
    spacing_mm: np.ndarray,
    shape: tuple[int, ...],
    h_maxima_mm: float,
    connectivity: int,
) -> Assignment:
    """Centers are the maxima of the distance transform; a voxel goes to the one in whose basin it lies.

    Maxima are extended h-maxima (:meth:`DepthBox.maxima`). From them the negated distance transform is flooded, the
    deepest voxels first, of equally deep ones those first that were reached first; which of the centers' own voxels
    begins among equally deep ones is up to :func:`skimage.segmentation.watershed`, and the same every time. Centers are
    numbered by component, and in the order in which the first voxels of their basins come. A component without a voxel
    deeper than `h_maxima_mm` has no center.

    Args:
        voxels: the foreground.
        component: (N,) its connected components, see :meth:`Voxels.components`.
        spacing_mm: (dim,) voxel size.
        shape: of the image. What lies beyond its border is not known: no distance is measured to it.
        h_maxima_mm: positive.
        connectivity: number of neighbors, of the image's dimension.

    >>> voxels = Voxels.of(np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]], bool))
    >>> found = assign_by_watershed(voxels, voxels.components(8), np.ones(2), (3, 7), 0.5, 8)
    >>> found.center[voxels.coordinates[:, 0] == 0]
    array([1, 1, 1, 2, 2, 2])
    """
    center, n_centers = np.zeros(len(voxels), np.int64), 0
    footprint = generate_binary_structure(voxels.dim, STRUCTURE[connectivity])
    for _, members in groups(component):
        box = DepthBox.of(voxels.coordinates[members], shape, spacing_mm)
        peaks = box.maxima(h_maxima_mm, connectivity)
        if not peaks.any():
            continue
        basin = watershed(-box.depth_mm, peaks, connectivity=footprint, mask=box.depth_mm > 0)[box.at]
        center[members] = n_centers + in_scan_order(basin)
        n_centers += int(basin.max())
    # Basins are connected, so that no distance has to decide between their pieces.
    return Assignment(center, np.zeros(len(voxels)), np.full(n_centers, np.nan, np.float32))
