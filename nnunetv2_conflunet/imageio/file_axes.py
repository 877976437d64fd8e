"""From the axes of nnU-Net's arrays to those of the files that viewers show."""

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from nnunetv2_conflunet.imageio import Geometry

# The readers reverse the axes of the file.
REVERSED_AXES = np.eye(4)[[2, 1, 0, 3]]


def array_to_file_index(shape: tuple[int, ...], properties: dict) -> np.ndarray:
    """Matrix from an index of the reader's array to the index (i, j, k) of that voxel in the file.

    Args:
        shape: (X, Y, Z) of the array, in nnU-Net's axis order.
        properties: what nnU-Net's reader returned; those of the reorienting readers tell how the file lay.

    Returns:
        (4, 4) of -1, 0, 1 and shifts.
    """
    if "original_orientation" in properties.get("sitk_stuff", {}):
        original = axcodes2ornt(properties["sitk_stuff"]["original_orientation"])
    elif "reoriented_affine" in properties.get("nibabel_stuff", {}):
        original = io_orientation(properties["nibabel_stuff"]["original_affine"])
    else:
        return REVERSED_AXES
    # The reader's image with its axes in file order, which it had turned to a standard orientation.
    turned_affine = Geometry.from_properties(shape, properties).affine @ REVERSED_AXES
    to_original = ornt_transform(io_orientation(turned_affine), original)
    to_turned_index = inv_ornt_aff(to_original, tuple(shape)[::-1])
    return np.rint(np.linalg.inv(to_turned_index)) @ REVERSED_AXES
