"""Colors of lesions: the same every time, and different wherever lesions touch."""

from collections import Counter

import numpy as np

from nnunetv2_conflunet.postprocessing.voxels import Voxels, touching_pairs

# No two are closer than 29 in CIELAB (CIE76); none is gray or dark, so that each stands out from an image.
PALETTE = np.array(
    [
        (230, 25, 75), (255, 225, 25), (67, 99, 216), (60, 180, 75), (240, 50, 230), (66, 212, 244), (245, 130, 49),
        (191, 239, 69), (145, 30, 180), (250, 190, 212), (0, 128, 128), (154, 99, 36), (170, 255, 195), (128, 128, 0),
        (255, 216, 177),
    ],
    dtype=np.uint8,
)  # fmt: skip
# Beyond the palette its colors come again, each time darker by this factor.
DARKER = 0.6
CONNECTIVITY = 26


def lesion_colors(instances: np.ndarray) -> np.ndarray:
    """A color for each instance, by greedy coloring of the graph of contacts (Welsh and Powell, 1967;
    26 neighbors).

    Instances with more contacts are colored first, at a tie the lower id. Each gets the color that fewest instances
    have so far among those that no neighbor has, at a tie the one that comes first in the palette.

    Args:
        instances: (X, Y, Z) non-negative integers, 0 is background.

    Returns:
        (N, 3) uint8, red, green and blue of each id, ascending by id. 15 colors, and darker ones only where more
        instances touch each other.

    >>> touching, alone = lesion_colors(np.array([[[4, 9, 0]]])), lesion_colors(np.array([[[4, 0, 0]]]))
    >>> touching.tolist(), alone.tolist()
    ([[230, 25, 75], [255, 225, 25]], [[230, 25, 75]])
    """
    mask = instances != 0
    voxels = Voxels.of(mask)
    ids, member = np.unique(instances[mask], return_inverse=True)
    neighbors: list[set[int]] = [set() for _ in ids]
    for first, second in touching_pairs(voxels, member, CONNECTIVITY).tolist():
        neighbors[first].add(second)
        neighbors[second].add(first)
    numbers: dict[int, int] = {}
    used = Counter[int]()
    for instance in sorted(range(len(ids)), key=lambda i: (-len(neighbors[i]), i)):
        taken = {numbers[other] for other in neighbors[instance] if other in numbers}
        free = [number for number in range(max(len(PALETTE), len(taken) + 1)) if number not in taken]
        # The palette first, its darker shades only if need be.
        number = min(free, key=lambda number: (number // len(PALETTE), used[number], number))
        numbers[instance] = number
        used[number] += 1
    chosen = np.array([numbers[instance] for instance in range(len(ids))], np.int64)
    shade, color = np.divmod(chosen, len(PALETTE))
    return np.rint(PALETTE[color] * DARKER ** shade[:, None]).astype(np.uint8)
