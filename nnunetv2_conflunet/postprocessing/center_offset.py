"""Center-offset: a voxel belongs to the center nearest to where its offset points."""

import numpy as np

from nnunetv2_conflunet.postprocessing.heads import Heads
from nnunetv2_conflunet.postprocessing.nearest import nearest_label
from nnunetv2_conflunet.postprocessing.peaks import Peaks, find_peaks
from nnunetv2_conflunet.postprocessing.pieces import Assignment
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def assign_by_offsets(
    voxels: Voxels,
    heads: Heads,
    *,
    heatmap_threshold: float,
    window_mm: float,
    min_prominence: float,
    top_k: int | None,
) -> Assignment:
    """Centers from the heatmap; voxel v goes to argmin_k || C_k - (v + O(v)) || in mm (Wynen et al., ISBI 2024).

    The heatmap is not masked by the foreground: the center of a concave lesion lies outside of it.
    """
    peaks = find_peaks(
        heads.heatmap,
        heads.spacing_mm,
        threshold=heatmap_threshold,
        window_mm=window_mm,
        min_prominence=min_prominence,
        top_k=top_k,
    )
    return assign_to_peaks(voxels, heads, peaks)


def assign_to_peaks(voxels: Voxels, heads: Heads, peaks: Peaks) -> Assignment:
    """The assignment of :func:`assign_by_offsets` for peaks that are known."""
    n = len(voxels)
    if not n or not len(peaks.scores):
        return Assignment(np.zeros(n, np.int64), np.zeros(n), peaks.scores)
    centers_mm = heads.positions_mm(peaks.indices)
    voxels_mm = voxels.coordinates * heads.image_spacing_mm
    pointed_mm = voxels_mm + heads.offsets_at(voxels.coordinates)
    # Peaks are numbered from the highest, so that a tie goes to the higher one.
    center, _ = nearest_label(pointed_mm, centers_mm, np.arange(1, len(centers_mm) + 1))
    return Assignment(center, np.linalg.norm(voxels_mm - centers_mm[center - 1], axis=1), peaks.scores)
