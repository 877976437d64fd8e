"""Clocks, peak memory, and a pair of brain-sized maps. Needs only NumPy."""

import multiprocessing
import time
from pathlib import Path

import numpy as np

SHAPE = (182, 218, 182)
SPACING_MM = (1.0, 1.0, 1.0)


def ball_pair(n_lesions, seed=0):
    """A prediction and a reference with `n_lesions` balls of radius 2 to 6 voxels, displaced by about one voxel."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, *SHAPE), np.int32)
    offsets = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3, indexing="ij"), axis=-1)
    for label in range(1, n_lesions + 1):
        center, radius = rng.integers([35, 40, 35], [147, 178, 147]), rng.uniform(2, 6)
        for instances, shift in zip(maps, (rng.normal(0, 1, 3), np.zeros(3)), strict=True):
            ball = ((offsets - shift) ** 2).sum(axis=-1) < radius**2
            instances[tuple(slice(c - 8, c + 9) for c in center)][ball] = label
    return maps[0], maps[1]


def median_seconds(function, repetitions=7, clock=time.process_time):
    """Median over calls, by default of the CPU seconds of this process."""
    seconds = []
    for _ in range(repetitions):
        start = clock()
        function()
        seconds.append(clock() - start)
    return float(np.median(seconds))


def in_own_process(function, *args, method="spawn"):
    """Run a function in a separate process, so that its peak memory is its own, and return the result."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, function, args))
    process.start()
    theirs.close()
    result = ours.recv()
    process.join()
    return result


def _send(pipe, function, args):
    pipe.send(function(*args))


def reset_peak():
    """Reset the peak resident size of this process to the current one (man 5 proc, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib(name="VmHWM"):
    """Resident size of this process: current (``VmRSS``) or peak (``VmHWM``).

    getrusage is not used, since its value is at least that of the parent process.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024
