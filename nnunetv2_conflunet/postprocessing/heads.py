"""The network's heads on their own grid, sampled where the image has its voxels."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.postprocessing.sampling import sample_maps
from nnunetv2_conflunet.utilities.array_checks import check_finite, flat_axes
from nnunetv2_conflunet.utilities.errors import InputError


@dataclass(frozen=True, eq=False)
class Heads:
    """Heatmap and offsets of one image, whose grid may be finer or coarser than the image's.

    Attributes:
        heatmap: (X', Y', Z') float32, in C order.
        offsets_mm: (dim, X', Y', Z') floating point, in the image's axis order.
        box: (dim, 2) half-open range of the image's voxels that the grid covers.
        image_spacing_mm: (dim,) voxel size of the image.
    """

    heatmap: np.ndarray
    offsets_mm: np.ndarray
    box: np.ndarray
    image_spacing_mm: np.ndarray

    @property
    def voxels_per_step(self) -> np.ndarray:
        """(dim,) voxels of the image to one voxel of the heads."""
        return (self.box[:, 1] - self.box[:, 0]) / self.heatmap.shape

    @property
    def spacing_mm(self) -> np.ndarray:
        """(dim,) voxel size of the heads' grid."""
        return self.image_spacing_mm * self.voxels_per_step

    def positions_mm(self, indices: np.ndarray) -> np.ndarray:
        """Where voxels of the heads lie, in mm from the image's first voxel center; (K, dim) to (K, dim)."""
        return (self.box[:, 0] + (indices + 0.5) * self.voxels_per_step - 0.5) * self.image_spacing_mm

    def heatmap_at(self, voxels: np.ndarray) -> np.ndarray:
        """The heatmap at voxels of the image, (N, dim) index to (N,) float32; see :func:`sample_maps`."""
        return sample_maps(self.heatmap[None], self.box, voxels)[0]

    def offsets_at(self, voxels: np.ndarray) -> np.ndarray:
        """Offsets at voxels of the image, (N, dim) index to (N, dim) float32 in mm; see :func:`sample_maps`."""
        return sample_maps(self.offsets_mm, self.box, voxels).T


def check_heads(
    heatmap: np.ndarray,
    offsets_mm: np.ndarray,
    image_shape: tuple[int, ...],
    image_spacing_mm: np.ndarray,
    heads_box: np.ndarray | None,
) -> Heads:
    """The heads of an image in its own number of dimensions: without the first axis of a 2D image (1, Y, X).

    Args:
        heatmap: (X', Y', Z') or (Y', X').
        offsets_mm: (dim, *heatmap.shape).
        image_shape: with the first axis of a 2D image.
        image_spacing_mm: (dim,) without the first axis of a 2D image.
        heads_box: see :func:`instantiate_center_offset`.

    Raises:
        InputError: shapes that do not belong together, NaN or infinite values, a box outside the image.
    """
    heatmap, offsets_mm = np.asarray(heatmap), np.asarray(offsets_mm)
    ndim = len(image_shape)
    if heatmap.ndim != ndim or 0 in heatmap.shape:
        raise InputError(f"heatmap has shape {heatmap.shape}; foreground {tuple(image_shape)} needs {ndim} axes.")
    flat = flat_axes(ndim, image_shape)
    if flat and heatmap.shape[0] != 1:
        raise InputError(f"heatmap has shape {heatmap.shape} but foreground {tuple(image_shape)} is a single slice.")
    dim = ndim - len(flat)
    if offsets_mm.shape[1:] != heatmap.shape or offsets_mm.shape[0] not in (dim, ndim):
        raise InputError(
            f"offsets_mm has shape {offsets_mm.shape}; with heatmap {heatmap.shape} it must be "
            f"{(dim, *heatmap.shape)}: one component an axis first."
        )
    check_finite(heatmap, "heatmap")
    for axis, component in enumerate(offsets_mm):
        check_finite(component, f"offsets_mm[{axis}]")
    box = np.array([(0, n) for n in image_shape]) if heads_box is None else np.asarray(heads_box)
    if box.shape != (ndim, 2) or not ((box[:, 0] >= 0) & (box[:, 0] < box[:, 1]) & (box[:, 1] <= image_shape)).all():
        raise InputError(f"heads_box {box.tolist()} must hold one half-open range inside {tuple(image_shape)} an axis.")
    if flat:
        # Offsets across a single slice point nowhere.
        heatmap, offsets_mm, box = heatmap[0], offsets_mm[-dim:, 0], box[1:]
    return Heads(np.ascontiguousarray(heatmap, np.float32), offsets_mm, box, image_spacing_mm)
