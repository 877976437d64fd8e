"""Whether centers are those to which their own offsets point."""

import numpy as np
from scipy.spatial import cKDTree

from nnunetv2_conflunet.postprocessing.nearest import TIE_MM


def is_consistent(centers_mm: np.ndarray, offsets_mm: np.ndarray, least: float) -> np.ndarray:
    """Which centers are left when those whose own offset leads to another one are left out.

    The offset at the center of a lesion is 0. A center's consistency is the distance from where its own offset points
    to the nearest other center, in units of the distance to itself. Below 1 the rule of the paper (Wynen et al., ISBI
    2024) gives the center's own voxel to another center. Centers are judged from the last to the first, and what is
    left out no longer counts for those that follow, so that of two that point at each other the first stays.

    Args:
        centers_mm: (K, dim) positions, the most certain first.
        offsets_mm: (K, dim) offsets at these positions.
        least: lowest consistency of a center; 0 keeps all.

    Returns:
        (K,) bool.
    """
    kept = np.ones(len(centers_mm), bool)
    if least <= 0 or len(centers_mm) < 2:
        return kept
    centers_mm, offsets_mm = np.asarray(centers_mm, np.float64), np.asarray(offsets_mm, np.float64)
    tree = cKDTree(centers_mm)
    pointed_mm = centers_mm + offsets_mm
    reach_mm = least * np.linalg.norm(offsets_mm, axis=1) - TIE_MM
    # At least two neighbours, of which one may be the center itself.
    distance_mm, neighbour = tree.query(pointed_mm, k=2)
    other = neighbour != np.arange(len(centers_mm))[:, None]
    candidates = np.flatnonzero((other & (distance_mm < reach_mm[:, None])).any(axis=1))
    for center in candidates[::-1]:
        near = np.array(tree.query_ball_point(pointed_mm[center], reach_mm[center]), np.intp)
        kept[center] = not kept[near[near != center]].any()
    return kept
