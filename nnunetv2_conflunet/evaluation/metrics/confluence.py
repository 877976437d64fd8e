"""Which instances are confluent lesion units (CLU)."""

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.array_checks import check_connectivity

CLU_DEFINITIONS = ("shared", "eq3")


def find_confluent(
    coordinates: np.ndarray, ids: np.ndarray, *, connectivity: int = 26, definition: str = "shared"
) -> np.ndarray:
    """Find the confluent lesion units of a map.

    Args:
        coordinates: (V, 2) or (V, 3) array index of each voxel of the map's foreground.
        ids: (V,) int64, instance of each of these voxels.
        connectivity: of the components of the mask: 6, 18 or 26, in two dimensions 4 or 8 (6 means 4, 18 and 26
            mean 8).
        definition: ``"shared"``: an instance is a CLU when one of the connected components that it has voxels in
            holds another instance as well. ``"eq3"``: the formula of Wynen et al., ISBI 2024, eq. 3, taken
            literally: 0 < IoU(instance, component) < 1 for some component; an instance of several pieces then is a
            CLU of its own.

    Returns:
        (N,) bool, for each instance by ascending id.

    Raises:
        InputError: a connectivity that does not exist in this number of dimensions.

    >>> find_confluent(np.array([[0, 0], [0, 1], [0, 5]]), np.array([1, 2, 3]))
    array([ True,  True, False])
    """
    connectivity = check_connectivity(connectivity, coordinates.shape[1])
    component = Voxels(coordinates).components(connectivity)
    # One entry for each instance and component that share voxels.
    base = int(component.max(initial=0)) + 1
    instance, component = np.divmod(np.unique(ids * base + component), base)
    _, instance = np.unique(instance, return_inverse=True)
    is_shared = np.bincount(component)[component] > 1
    confluent = np.bincount(instance, is_shared) > 0
    return confluent if definition == "shared" else confluent | (np.bincount(instance) > 1)
