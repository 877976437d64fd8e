"""Center-offset: a voxel belongs to the center nearest to where its offset points."""

import warnings

import numpy as np

from nnunetv2_conflunet.postprocessing.consistency import is_consistent
from nnunetv2_conflunet.postprocessing.heads import Heads
from nnunetv2_conflunet.postprocessing.nearest import nearest_label
from nnunetv2_conflunet.postprocessing.peaks import Peaks, find_peaks
from nnunetv2_conflunet.postprocessing.pieces import Assignment
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def find_centers(
    heads: Heads,
    *,
    heatmap_threshold: float,
    window_mm: float,
    min_prominence: float,
    min_consistency: float,
    top_k: int | None,
) -> Peaks:
    """The peaks of the heatmap that are centers; the arguments are those of :func:`instantiate_center_offset`.

    The heatmap is not masked by the foreground: the center of a concave lesion lies outside of it.
    """
    peaks = find_peaks(
        heads.heatmap,
        heads.spacing_mm,
        threshold=heatmap_threshold,
        window_mm=window_mm,
        min_prominence=min_prominence,
    )
    peaks = consistent_peaks(peaks, heads, min_consistency)
    if top_k is not None and len(peaks.scores) > top_k:
        warnings.warn(f"{len(peaks.scores)} centers found; top_k keeps the {top_k} highest.", stacklevel=3)
        peaks = peaks[:top_k]
    return peaks


def consistent_peaks(peaks: Peaks, heads: Heads, min_consistency: float) -> Peaks:
    """The peaks that are left by :func:`.consistency.is_consistent`, the lowest judged first."""
    offsets_mm = heads.offsets_mm[(slice(None), *peaks.indices.T)].T
    return peaks[is_consistent(heads.positions_mm(peaks.indices), offsets_mm, min_consistency)]


def assign_by_offsets(voxels: Voxels, heads: Heads, peaks: Peaks) -> Assignment:
    """Voxel v goes to the center argmin_k || C_k - (v + O(v)) || in mm (Wynen et al., ISBI 2024)."""
    n = len(voxels)
    if not n or not len(peaks.scores):
        return Assignment(np.zeros(n, np.int64), np.zeros(n), peaks.scores)
    centers_mm = heads.positions_mm(peaks.indices)
    voxels_mm = voxels.coordinates * heads.image_spacing_mm
    pointed_mm = voxels_mm + heads.offsets_at(voxels.coordinates)
    # Peaks are numbered from the highest, so that a tie goes to the higher one.
    center, _ = nearest_label(pointed_mm, centers_mm, np.arange(1, len(centers_mm) + 1))
    return Assignment(center, np.linalg.norm(voxels_mm - centers_mm[center - 1], axis=1), peaks.scores)
