"""Maps on the network's grid, sampled where the image has its voxels."""

import numpy as np
from scipy.ndimage import map_coordinates


def sample_maps(maps: np.ndarray, box: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Values of maps at voxels of an image whose grid may be finer or coarser.

    Both grids cover the same extent, voxel i of n lying at (i + 0.5) / n of it, as when nnU-Net resamples with
    ``skimage.transform.resize``. Between the maps' voxels values are interpolated linearly; beyond their outermost
    voxel centers the outermost value holds.

    Args:
        maps: (C, X', Y', Z') or (C, Y', X') floating point.
        box: (dim, 2) half-open range of the image's voxels that the maps cover.
        voxels: (N, dim) index of voxels of the image.

    Returns:
        (C, N) float32.
    """
    shape = np.array(maps.shape[1:])
    last = shape[:, None] - 1
    voxels_per_step = (box[:, 1] - box[:, 0]) / shape
    at = voxels.T - box[:, :1]
    found = np.empty((len(maps), len(voxels)), np.float32)
    if (voxels_per_step == 1).all():
        # With the axes in the order of memory, also of transposed maps, flattening copies nothing.
        axes = np.argsort(maps.strides[1:])[::-1]
        flat = np.ravel_multi_index(tuple(at[axes]), tuple(shape[axes]), mode="clip")
        for values, one in zip(found, maps, strict=True):
            values[:] = one.transpose(axes).reshape(-1)[flat]
    elif len(voxels):
        at = (at + 0.5) / voxels_per_step[:, None] - 0.5
        # Converting to float32 is left to the part that is asked for.
        before = np.clip(np.floor(at.min(axis=1, keepdims=True)).astype(np.int64), 0, last)
        after = np.clip(np.floor(at.max(axis=1, keepdims=True)).astype(np.int64) + 1, 0, last)
        part = tuple(slice(a, b + 1) for a, b in zip(before.flat, after.flat, strict=True))
        for values, one in zip(found, maps, strict=True):
            map_coordinates(one[part].astype(np.float32, copy=False), at - before, values, order=1, mode="nearest")
    return found
