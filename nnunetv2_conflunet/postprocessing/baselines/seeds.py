"""Centers that are groups of voxels: what lies outside of them goes to the nearest one."""

import numpy as np

from nnunetv2_conflunet.postprocessing.pieces import Assignment, nearest_label
from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels


def assign_to_nearest_seed(
    voxels: Voxels,
    component: np.ndarray,
    spacing_mm: np.ndarray,
    seed_of: np.ndarray,
    seed_label: np.ndarray,
    *,
    inside_component: bool,
) -> Assignment:
    """A voxel goes to the seed with the voxel nearest to it in mm; a tie goes to the lowest number.

    A component with one seed is that seed's whatever is nearest; one without has none.

    Args:
        voxels: the foreground.
        component: (N,) its connected components, see :meth:`Voxels.components`.
        spacing_mm: (dim,) voxel size.
        seed_of: (M,) positions of the voxels in seeds, ascending.
        seed_label: (M,) the seed of each, 1..K, numbered in the order in which the seeds' first voxels come.
        inside_component: whether a voxel goes to the nearest seed of its own component only.

    >>> voxels = Voxels.of(np.ones((1, 5), bool))
    >>> seeds, labels = np.array([0, 4]), np.array([1, 2])
    >>> assign_to_nearest_seed(voxels, np.ones(5, int), np.ones(2), seeds, labels, inside_component=True).center
    array([1, 1, 1, 2, 2])
    """
    n = len(voxels)
    center, distance_mm = np.zeros(n, np.int64), np.zeros(n)
    center[seed_of] = seed_label
    if len(seed_of):
        n_seeds = np.bincount(component[seed_of[first_voxels(seed_label)]], minlength=n + 1)
        only_label = np.zeros(n + 1, np.int64)
        only_label[component[seed_of]] = seed_label
        one = n_seeds[component] == 1
        center[one] = only_label[component[one]]
        others = (center == 0) & (n_seeds[component] > 1)
        position = voxels.coordinates * spacing_mm
        if inside_component:
            # One more axis that holds components apart by more than the image is long.
            position = np.column_stack([position, component * (2 * np.linalg.norm(position.max(axis=0)) + 1)])
        center[others], distance_mm[others] = nearest_label(position[others], position[seed_of], seed_label)
    return Assignment(center, distance_mm, np.full(seed_label.max(initial=0), np.nan, np.float32))
