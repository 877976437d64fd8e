"""A map of the size of a head in which each slip of an annotator is planted once."""

import numpy as np

# (Z, Y, X): 150 x 180 x 180 mm. Along x, which is the patient's left to right, the middle is at 89 mm.
SHAPE, SPACING_MM = (50, 90, 90), (3.0, 2.0, 2.0)
# What is found, with the id.
PLANTED = {
    ("pieces", 2),
    ("reused_id", 3),
    ("reused_id", 4),
    ("contact", 5),
    ("single_voxel", 7),
    ("small", 8),
    ("border", 9),
    ("pieces", 10),
    ("single_voxel", 10),
}


def box(instances, label, z, y, x, size=(3, 4, 4)):
    """Give an id to a box of 9 x 8 x 8 mm, or another size in voxels, from a voxel on."""
    at = tuple(slice(start, start + n) for start, n in zip((z, y, x), size, strict=True))
    assert not instances[at].any()
    instances[at] = label


def planted_slips():
    """The map, (Z, Y, X) int32."""
    instances = np.zeros(SHAPE, np.int32)
    # Nothing wrong: a lesion; one that crosses the middle; two that touch by a whole side.
    box(instances, 1, 20, 20, 20)
    box(instances, 11, 30, 20, 35, (3, 4, 20))
    box(instances, 12, 40, 20, 20)
    box(instances, 13, 43, 20, 20)
    # Two pieces, from x = 20 + 3 to 29: 6 voxels of 2 mm.
    box(instances, 2, 20, 40, 20)
    box(instances, 2, 20, 40, 29)
    # Two pieces, from y = 8 to 40: 32 voxels of 2 mm.
    box(instances, 3, 10, 5, 60)
    box(instances, 3, 10, 40, 60)
    # On both sides of the middle, from x = 39 to 50: 22 mm apart.
    box(instances, 4, 20, 60, 36)
    box(instances, 4, 20, 60, 50)
    # They touch at a corner.
    box(instances, 5, 30, 60, 10)
    box(instances, 6, 33, 64, 14)
    instances[5, 70, 70] = 7
    # 24 mm3, but only one voxel of 2 mm along y.
    box(instances, 8, 10, 80, 10, (1, 1, 2))
    box(instances, 9, 47, 50, 70)
    # A stray voxel, from x = 73 to 76.
    box(instances, 10, 30, 75, 70)
    instances[31, 76, 76] = 10
    return instances
