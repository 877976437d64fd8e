"""The nearest site against a comparison with every site."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from nnunetv2_conflunet.postprocessing.pieces import nearest_label


def lowest_of_the_nearest(points_mm, sites_mm, labels):
    distance = cdist(points_mm, sites_mm)
    tied = distance <= distance.min(axis=1, keepdims=True) + 1e-6
    return np.where(tied, labels, labels.max() + 1).min(axis=1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n_points=st.integers(0, 60),
    n_sites=st.integers(1, 30),
    on_a_lattice=st.booleans(),
    spread_mm=st.sampled_from([0.3, 2.0, 10.0]),
)
def test_it_matches_the_comparison_with_every_site(seed, n_points, n_sites, on_a_lattice, spread_mm):
    rng = np.random.default_rng(seed)
    sites = rng.uniform(0, 20, (n_sites, 3))
    points = sites[rng.integers(0, n_sites, n_points)] + rng.normal(0, spread_mm, (n_points, 3))
    if on_a_lattice:
        # Many ties, and sites that coincide.
        sites, points = np.rint(sites / 3), np.rint(points / 3)
    label = rng.integers(1, 5, n_sites)
    found, distance = nearest_label(points, sites, label)
    assert found.tolist() == (lowest_of_the_nearest(points, sites, label).tolist() if len(points) else [])
    assert distance == pytest.approx(cdist(points, sites).min(axis=1))
