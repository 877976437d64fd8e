"""Colors in which lesions that touch differ."""

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels, touching_pairs
from nnunetv2_conflunet.utilities.array_checks import flat_axes

# Bright on gray images; the first five differ for readers with color vision deficiencies as well.
PALETTE = ("#ffd400", "#33c3ff", "#ff5a36", "#7dff5a", "#ff7ae0", "#b69cff", "#ff9d2e", "#2effc8")


def touching_colors(instances: np.ndarray) -> dict[int, str]:
    """A color of the palette for each instance, such that instances that touch differ; the same each time.

    Instances take colors in turn, by id, and skip those of their neighbors (of 26, in a plane 8). One with more
    neighbors than there are colors takes the color that the fewest of them have.

    Args:
        instances: (X, Y, Z) or (Y, X) non-negative integers, 0 is background.

    >>> touching_colors(np.array([[1, 2, 0, 3]]))
    {1: '#ffd400', 2: '#33c3ff', 3: '#ff5a36'}
    """
    view = instances[0] if flat_axes(instances.ndim, instances.shape) else instances
    voxels = Voxels.of(view != 0)
    ids, member = np.unique(view[tuple(voxels.coordinates.T)], return_inverse=True)
    neighbors: list[list[int]] = [[] for _ in ids]
    for first, second in touching_pairs(voxels, member, 8 if voxels.dim == 2 else 26).tolist():
        neighbors[second].append(first)
    chosen = np.zeros(len(ids), int)
    for i, before in enumerate(neighbors):
        used = np.bincount(chosen[before], minlength=len(PALETTE))
        in_turn = np.roll(np.arange(len(PALETTE)), -i)
        chosen[i] = in_turn[used[in_turn].argmin()]
    return {int(label): PALETTE[color] for label, color in zip(ids, chosen, strict=True)}
