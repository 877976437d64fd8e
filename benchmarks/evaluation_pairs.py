"""A pair of maps of the size of a brain, and the clock, for the benchmarks of the evaluation."""

import time

import numpy as np

SHAPE = (182, 218, 182)
SPACING_MM = (1.0, 1.0, 1.0)


def ball_pair(n_lesions, seed=0):
    """A prediction and a reference of `n_lesions` balls of 2 to 6 voxels radius, the prediction's displaced by one."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, *SHAPE), np.int32)
    offsets = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3, indexing="ij"), axis=-1)
    for i in range(1, n_lesions + 1):
        center, radius = rng.integers([35, 40, 35], [147, 178, 147]), rng.uniform(2, 6)
        for instances, shift in zip(maps, (rng.normal(0, 1, 3), np.zeros(3)), strict=True):
            ball = ((offsets - shift) ** 2).sum(axis=-1) < radius**2
            instances[tuple(slice(c - 8, c + 9) for c in center)][ball] = i
    return maps[0], maps[1]


def cpu_seconds(function, repetitions=7):
    seconds = []
    for _ in range(repetitions):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))
