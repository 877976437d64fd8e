"""Which instances are confluent lesion units (CLU)."""

import cc3d
import numpy as np

from nnunetv2_conflunet.utilities.errors import InputError

CLU_DEFINITIONS = ("shared", "eq3")
# In a plane the 18- and the 26-neighbourhood are the same eight voxels.
CONNECTIVITY_IN_PLANE = {4: 4, 6: 4, 8: 8, 18: 8, 26: 8}


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
        InputError: an unknown definition or connectivity.
    """
    if definition not in CLU_DEFINITIONS:
        raise InputError(f"There is no CLU definition '{definition}'; use one of {', '.join(CLU_DEFINITIONS)}.")
    ndim = coordinates.shape[1]
    allowed = (6, 18, 26) if ndim == 3 else tuple(CONNECTIVITY_IN_PLANE)
    if connectivity not in allowed:
        raise InputError(f"The connectivity {connectivity} is none of {allowed} for {ndim} dimensions.")
    if not len(ids):
        return np.zeros(0, bool)
    # Components are sought in the bounding box of the foreground only.
    within_box = tuple((coordinates - coordinates.min(axis=0)).T)
    # cc3d 4.1 runs out of provisional labels on bool arrays of isolated voxels; it does not on uint8.
    mask = np.zeros([int(i.max()) + 1 for i in within_box], np.uint8)
    mask[within_box] = 1
    component = cc3d.connected_components(
        mask, connectivity=connectivity if ndim == 3 else CONNECTIVITY_IN_PLANE[connectivity]
    )[within_box].astype(np.int64)
    # One entry for each instance and component that share voxels.
    base = int(component.max()) + 1
    instance, component = np.divmod(np.unique(ids * base + component), base)
    _, instance = np.unique(instance, return_inverse=True)
    in_crowd = np.bincount(component)[component] > 1
    confluent = np.bincount(instance, in_crowd) > 0
    return confluent if definition == "shared" else confluent | (np.bincount(instance) > 1)
