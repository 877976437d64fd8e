"""Scenes whose right answer is known."""

from itertools import product

import numpy as np


def positions_mm(shape, spacing_mm):
    """(*shape, dim) position of every voxel center."""
    return np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1) * np.asarray(spacing_mm, float)


def perfect_heads(instances, spacing_mm, sigma_mm=2.0, dropped=()):
    """The heads that a perfect network would give, without the peaks of the dropped ids."""
    at = positions_mm(instances.shape, spacing_mm)
    heatmap = np.zeros(instances.shape, np.float32)
    offsets_mm = np.zeros((instances.ndim, *instances.shape), np.float32)
    for i in np.unique(instances[instances > 0]):
        mine = instances == i
        center = at[mine].mean(axis=0)
        offsets_mm[:, mine] = (center - at[mine]).T
        if i not in dropped:
            heatmap = np.maximum(heatmap, np.exp(-((at - center) ** 2).sum(axis=-1) / (2 * sigma_mm**2)))
    return heatmap.astype(np.float32), offsets_mm


def balls(seed, shape, spacing_mm, n, pitch_mm=7.0):
    """Up to n balls of 2 to 5.5 mm around points that lie at least `pitch_mm` apart; many touch.

    A voxel belongs to the nearest of the points, so that the instances are convex.
    """
    rng = np.random.default_rng(seed)
    extent = np.array(shape) * spacing_mm
    centers = []
    for point in rng.uniform(0.1, 0.9, (20 * n, len(shape))) * extent:
        if len(centers) < n and all(np.linalg.norm(point - c) >= pitch_mm for c in centers):
            centers.append(point)
    distance = np.linalg.norm(positions_mm(shape, spacing_mm)[..., None, :] - np.array(centers), axis=-1)
    nearest = distance.argmin(axis=-1)
    radius = rng.uniform(2, 5.5, len(centers))
    inside = distance.min(axis=-1) <= radius[nearest]
    return np.where(inside, nearest + 1, 0).astype(np.int32)


def same_partition(a, b):
    """Whether two maps are the same up to the numbers of the ids."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return (
        np.array_equal(a > 0, b > 0)
        and len(pairs[0]) == len(np.unique(pairs[0]))
        and len(pairs[1]) == len(np.unique(pairs[1]))
    )


def touching_ids(instances):
    """Pairs of different ids in neighboring voxels, the lower one first, one voxel after another."""
    found = set()
    for at in np.argwhere(instances):
        for step in product((-1, 0, 1), repeat=instances.ndim):
            other = at + step
            if ((other >= 0) & (other < instances.shape)).all() and instances[tuple(other)]:
                found.add(tuple(sorted((int(instances[tuple(at)]), int(instances[tuple(other)])))))
    return {(one, two) for one, two in found if one != two}
