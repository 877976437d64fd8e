"""The nearest site with ties broken by a written rule."""

import numpy as np
from scipy.spatial import cKDTree

# Sites whose distances differ by less are equally near: above the rounding of float64 positions in mm, far below a
# voxel.
TIE_MM = 1e-6
# Sites to look at first: seldom are more equally near.
FIRST_SITES = 4


def nearest_label(points_mm: np.ndarray, sites_mm: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label of the site nearest to each point; among equally near sites the lowest label.

    Args:
        points_mm: (N, dim) positions in mm.
        sites_mm: (K, dim) positions in mm, K >= 1.
        labels: (K,) integers.

    Returns:
        (N,) labels and (N,) distances in mm.
    """
    # Balancing takes longer than it saves.
    tree = cKDTree(sites_mm, balanced_tree=False, compact_nodes=False)
    k = min(FIRST_SITES, len(sites_mm))
    distance, site = _query(tree, points_mm, k)
    found, nearest_mm = labels[site[:, 0]], distance[:, 0]
    open_points = np.arange(len(points_mm)) if k > 1 else np.zeros(0, np.intp)
    while len(open_points):
        tied = distance <= distance[:, :1] + TIE_MM
        found[open_points] = np.where(tied, labels[site], np.iinfo(labels.dtype).max).min(axis=1)
        # Where even the last of the k sites is tied there may be more.
        more = tied[:, -1] & (k < len(sites_mm))
        open_points = open_points[more]
        k = min(4 * k, len(sites_mm))
        if len(open_points):
            distance, site = _query(tree, points_mm[open_points], k)
    return found, nearest_mm


def _query(tree: cKDTree, points_mm: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return tree.query(points_mm, k=np.arange(1, k + 1))
