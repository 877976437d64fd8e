"""Confluent lesion units (CLU)."""

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.array_checks import check_connectivity

CLU_DEFINITIONS = ("shared", "eq3", "published")


def find_confluent(
    counted: np.ndarray,
    coordinates: np.ndarray,
    ids: np.ndarray,
    *,
    connectivity: int = 26,
    definition: str = "shared",
    dilations: int = 0,
) -> np.ndarray:
    """Which instances of a map are confluent lesion units.

    Args:
        counted: (N,) ids of the instances to tell of, ascending; the map may also hold others, such as unknown ones.
        coordinates: (V, 2) or (V, 3) array indices of voxels.
        ids: (V,) int64, instance of each of these voxels, 0 is background.
        connectivity: of the components of the mask: 6, 18 or 26; in 2D 4 or 8 (6 means 4, 18 and 26 mean 8).
        definition: ``"shared"``: an instance is a CLU if one of the connected components that contain its voxels also
            contains another instance. ``"eq3"``: the formula of Wynen et al., ISBI 2024, eq. 3, taken
            literally: 0 < IoU(instance, component) < 1 for some component; an instance in several pieces is then a
            CLU by itself. ``"published"``: like ``"shared"``; its metrics are those of :mod:`.published`.
        dilations: how often the mask is dilated, across faces, before its components are found; lesions that come
            close are then in one component.

    Returns:
        (N,) bool.

    Raises:
        InputError: the connectivity does not exist in this number of dimensions.

    >>> find_confluent(np.array([1, 3]), np.array([[0, 0], [0, 1], [0, 5], [0, 7]]), np.array([1, 2, 3, 0]))
    array([ True, False])
    """
    connectivity = check_connectivity(connectivity, coordinates.shape[1])
    within = np.flatnonzero(ids)
    component = _components(coordinates[within], connectivity, dilations)
    # One entry per pair of instance and component that share voxels.
    base = int(component.max(initial=0)) + 1
    instance, component = np.divmod(np.unique(ids[within] * base + component), base)
    present, instance = np.unique(instance, return_inverse=True)
    is_shared = np.bincount(component)[component] > 1
    confluent = np.bincount(instance, is_shared) > 0
    if definition == "eq3":
        confluent |= np.bincount(instance) > 1
    return confluent[np.isin(present, counted)]


def _components(coordinates: np.ndarray, connectivity: int, dilations: int) -> np.ndarray:
    """(V,) the component of each voxel in the dilated mask; voxels beyond the image never connect others."""
    if not dilations or not len(coordinates):
        return Voxels(coordinates).components(connectivity)
    first = coordinates.min(axis=0) - dilations
    shape = tuple(coordinates.max(axis=0) + dilations - first + 1)
    grown = own = np.ravel_multi_index(tuple((coordinates - first).T), shape)
    for _ in range(dilations):
        steps = [sign * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)) for sign in (-1, 1)]
        grown = np.unique(np.concatenate([grown, *(grown + step for step in steps)]))
    dilated = Voxels(np.stack(np.unravel_index(grown, shape), axis=1))
    return dilated.components(connectivity)[np.searchsorted(grown, own)]
