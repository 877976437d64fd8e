"""Small random pairs of instance maps."""

import numpy as np
import pytest


def random_boxes(rng, shape, n, ids):
    """A map of `n` boxes of random place and size; later boxes hide earlier ones, some are in several pieces."""
    instances = np.zeros(shape, np.int64)
    for i in rng.choice(ids, size=n, replace=False):
        for _ in range(rng.choice([1, 1, 1, 2])):
            start = [rng.integers(0, s) for s in shape]
            size = [rng.integers(1, max(3, s // 2)) for s in shape]
            instances[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = i
    return instances


def make_pair(rng, ndim):
    """A prediction and a reference: unrelated boxes, or a jittered copy with merges, splits, misses and extras."""
    shape = tuple(rng.integers(5, 15 if ndim == 2 else 10, size=ndim))
    ids = np.unique(rng.integers(1, 1000, size=40))
    reference = random_boxes(rng, shape, rng.integers(0, 9), ids)
    if rng.random() < 0.25:
        return random_boxes(rng, shape, rng.integers(0, 7), ids), reference
    prediction = reference.copy()
    if rng.random() < 0.5:
        prediction = np.roll(prediction, rng.integers(-1, 2, size=ndim), axis=tuple(range(ndim)))
    present = [label for label in np.unique(prediction) if label]
    for i in present:
        choice = rng.random()
        if choice < 0.15:
            prediction[prediction == i] = 0
        elif choice < 0.3:
            prediction[prediction == i] = rng.choice(present)
        elif choice < 0.45:
            half = np.zeros(shape, bool)
            half[: shape[0] // 2] = True
            prediction[(prediction == i) & half] = 2000 + i
    return prediction, reference


@pytest.fixture
def random_pair():
    """The function (rng, ndim) -> (prediction, reference)."""
    return make_pair
