"""The network's heads on their own grid, sampled where the image has its voxels."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from nnunetv2_conflunet.utilities.array_checks import check_finite, flat_axes
from nnunetv2_conflunet.utilities.errors import InputError


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """Heatmap and offsets of one image, whose grid may be finer or coarser than the image's.

    Attributes:
        heatmap: (X', Y', Z') float32, in C order.
        offsets_mm: (dim, X', Y', Z') floating point, in the image's axis order.
        heads_box: (dim, 2) half-open range of the image's voxels that the grid covers.
        image_spacing_mm: (dim,) voxel size of the image.
    """

    heatmap: np.ndarray
    offsets_mm: np.ndarray
    heads_box: np.ndarray
    image_spacing_mm: np.ndarray

    @classmethod
    def of(
        cls,
        heatmap: np.ndarray,
        offsets_mm: np.ndarray,
        image_shape: tuple[int, ...],
        image_spacing_mm: np.ndarray,
        heads_box: np.ndarray | None = None,
    ) -> "HeadMaps":
        """The heads of an image in its own number of dimensions: without the first axis of a 2D image (1, Y, X).

        Args:
            heatmap: (X', Y', Z') or (Y', X').
            offsets_mm: (dim, *heatmap.shape).
            image_shape: with the first axis of a 2D image.
            image_spacing_mm: (dim,) without the first axis of a 2D image.
            heads_box: see :func:`instantiate_center_offset`.

        Raises:
            InputError: shapes that do not belong together, NaN or infinite values, a box outside the image.

        >>> maps = HeadMaps.of(np.ones((4, 4)), np.zeros((2, 4, 4)), (8, 8), np.array([1.0, 3.0]))
        >>> maps.spacing_mm.tolist(), maps.positions_mm(np.array([[0, 0]])).tolist()
        ([2.0, 6.0], [[0.5, 1.5]])
        """
        heatmap, offsets_mm = np.asarray(heatmap), np.asarray(offsets_mm)
        ndim, image_shape = len(image_shape), tuple(image_shape)
        if heatmap.ndim != ndim or 0 in heatmap.shape:
            raise InputError(f"heatmap has shape {heatmap.shape}; foreground {image_shape} needs {ndim} axes.")
        flat = flat_axes(ndim, image_shape)
        if flat and heatmap.shape[0] != 1:
            raise InputError(f"heatmap has shape {heatmap.shape} but foreground {image_shape} is a single slice.")
        dim = ndim - len(flat)
        if offsets_mm.shape[1:] != heatmap.shape or offsets_mm.shape[0] not in (dim, ndim):
            raise InputError(
                f"offsets_mm has shape {offsets_mm.shape}; with heatmap {heatmap.shape} it must be "
                f"{(dim, *heatmap.shape)}: the first axis has one component per image axis."
            )
        check_finite(heatmap, "heatmap")
        for axis, component in enumerate(offsets_mm):
            check_finite(component, f"offsets_mm[{axis}]")
        box = np.array([(0, n) for n in image_shape]) if heads_box is None else np.asarray(heads_box)
        if (
            box.shape != (ndim, 2)
            or box.dtype.kind not in "iu"
            or not ((box[:, 0] >= 0) & (box[:, 0] < box[:, 1]) & (box[:, 1] <= image_shape)).all()
        ):
            raise InputError(
                f"heads_box {box.tolist()} must have one half-open range of whole numbers for each axis, inside "
                f"{image_shape}."
            )
        if flat:
            # Offsets across a single slice point nowhere.
            heatmap, offsets_mm, box = heatmap[0], offsets_mm[-dim:, 0], box[1:]
        return cls(np.ascontiguousarray(heatmap, np.float32), offsets_mm, box, image_spacing_mm)

    @property
    def voxels_per_step(self) -> np.ndarray:
        """(dim,) voxels of the image to one voxel of the heads."""
        return (self.heads_box[:, 1] - self.heads_box[:, 0]) / self.heatmap.shape

    @property
    def spacing_mm(self) -> np.ndarray:
        """(dim,) voxel size of the heads' grid."""
        return self.image_spacing_mm * self.voxels_per_step

    def positions_mm(self, indices: np.ndarray) -> np.ndarray:
        """Where voxels of the heads lie, in mm from the image's first voxel center; (K, dim) to (K, dim)."""
        return (self.heads_box[:, 0] + (indices + 0.5) * self.voxels_per_step - 0.5) * self.image_spacing_mm

    def heatmap_at(self, voxels: np.ndarray) -> np.ndarray:
        """The heatmap at voxels of the image, (N, dim) index to (N,) float32; see :func:`sample_maps`."""
        return sample_maps(self.heatmap[None], self.heads_box, voxels)[0]

    def offsets_at(self, voxels: np.ndarray) -> np.ndarray:
        """Offsets at voxels of the image, (N, dim) index to (N, dim) float32 in mm; see :func:`sample_maps`."""
        return sample_maps(self.offsets_mm, self.heads_box, voxels).T


def sample_maps(maps: np.ndarray, heads_box: np.ndarray, voxels: np.ndarray, nearest: int | None = None) -> np.ndarray:
    """Values of maps at voxels of an image whose grid may be finer or coarser.

    Both grids cover the same extent, voxel i of n lying at (i + 0.5) / n of it, as when nnU-Net resamples with
    ``skimage.transform.resize``. Between the maps' voxels values are interpolated linearly; beyond their outermost
    voxel centers the outermost value holds.

    Args:
        maps: (C, X', Y', Z') or (C, Y', X') floating point.
        heads_box: (dim, 2) half-open range of the image's voxels that the maps cover.
        voxels: (N, dim) index of voxels of the image.
        nearest: an axis along which the nearest voxel of the maps counts instead; halfway, the later one.

    Returns:
        (C, N) float32.

    >>> sample_maps(np.array([[[0.0, 4.0]]]), np.array([(0, 1), (0, 4)]), np.array([(0, 0), (0, 1), (0, 2), (0, 3)]))
    array([[0., 1., 3., 4.]], dtype=float32)
    """
    shape = np.array(maps.shape[1:])
    last = shape[:, None] - 1
    voxels_per_step = (heads_box[:, 1] - heads_box[:, 0]) / shape
    at = voxels.T - heads_box[:, :1]
    found = np.empty((len(maps), len(voxels)), np.float32)
    if (voxels_per_step == 1).all():
        # With the axes in the order of memory, also of transposed maps, flattening copies nothing.
        axes = np.argsort(maps.strides[1:])[::-1]
        flat = np.ravel_multi_index(tuple(at[axes]), tuple(shape[axes]), mode="clip")
        for values, one in zip(found, maps, strict=True):
            values[:] = one.transpose(axes).reshape(-1)[flat]
    elif len(voxels):
        at = (at + 0.5) / voxels_per_step[:, None] - 0.5
        if nearest is not None:
            at[nearest] = np.floor(at[nearest] + 0.5)
        # Converting to float32 is left to the part that is asked for.
        before = np.clip(np.floor(at.min(axis=1, keepdims=True)).astype(np.int64), 0, last)
        after = np.clip(np.floor(at.max(axis=1, keepdims=True)).astype(np.int64) + 1, 0, last)
        part = tuple(slice(a, b + 1) for a, b in zip(before.flat, after.flat, strict=True))
        for values, one in zip(found, maps, strict=True):
            map_coordinates(one[part].astype(np.float32, copy=False), at - before, values, order=1, mode="nearest")
    return found
