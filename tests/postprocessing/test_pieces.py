"""Splitting and re-attachment on drawings, and against a slow reference."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunetv2_conflunet.postprocessing.pieces import Assignment, connected_regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def regions(drawing, centers, connectivity=8):
    """Drawing: one character a voxel, '.' background, a letter the center ('A' at centers[0], ...), '0' none."""
    rows = np.array([list(row) for row in drawing])
    voxels = Voxels.of(rows != ".")
    letters = rows[tuple(voxels.coordinates.T)]
    center = np.array([0 if c == "0" else ord(c) - ord("A") + 1 for c in letters])
    positions = np.array([(0, 0), *centers], float)
    distance = np.linalg.norm(voxels.coordinates - positions[center], axis=1)
    found = connected_regions(voxels, Assignment(center, distance, np.ones(len(centers))), connectivity)
    result = np.zeros(rows.shape, int)
    result[tuple(voxels.coordinates.T)] = found.instance
    return ["".join("." if i == 0 else str(i) for i in row) for row in result], found


def test_a_fragment_joins_the_neighbor_that_it_touches_most():
    drawing = [
        "AAAAABBB",
        "AAAAABBB",
        "AAABACCC",
        "AAAAACCC",
    ]
    found, account = regions(drawing, [(1, 1), (0, 6), (3, 6)])
    # The single B touches A with all its eight neighbors.
    assert found == ["11111222", "11111222", "11111333", "11111333"]
    assert (account.n_reattached_pieces, account.n_reattached_voxels) == (1, 1)


def test_contacts_decide_not_the_center_of_the_fragment():
    drawing = [
        "AA.BBB",
        "AACCBB",
        "AA.BBB",
        "......",
        "CCC...",
    ]
    # C claims the row at the bottom. Of the two C above, contacts with A: 3, with B: 3 + 2.
    found, _ = regions(drawing, [(1, 0), (1, 5), (4, 1)])
    assert found == ["11.222", "112222", "11.222", "......", "333..."]


def test_fragments_behind_fragments_join_in_turn():
    drawing = ["AAABCB", "......", "BBBB..", "......", "CCCC.."]
    found, account = regions(drawing, [(0, 0), (2, 1), (4, 1)])
    assert found == ["111111", "......", "2222..", "......", "3333.."]
    assert (account.n_reattached_pieces, account.n_reattached_voxels) == (3, 3)


def test_a_component_that_no_center_claims_is_one_instance():
    drawing = ["AA....AB", "AA....BB", "......AB", "BBB....."]
    found, account = regions(drawing, [(0, 0), (3, 0)])
    assert found == ["11....22", "11....22", "......22", "333....."]
    assert account.center.tolist() == [1, 0, 2]
    assert account.n_reattached_pieces == 0


def test_a_center_claims_what_is_near_to_it_not_what_is_large():
    drawing = ["A.....AAAA", "......AAAA"]
    found, account = regions(drawing, [(0, 0)])
    assert found == ["1.....2222", "......2222"]
    assert account.center.tolist() == [1, 0]


def test_within_a_component_the_largest_piece_is_the_instance():
    drawing = ["ABBAAA", "BBBAAA"]
    found, _ = regions(drawing, [(0, 0), (1, 1)])
    # The A at its own center is smaller than the A on the right, and joins B.
    assert found == ["111222", "111222"]


def test_connectivity_decides_what_is_cut_off():
    drawing = ["A.", ".A"]
    assert regions(drawing, [(0, 0)], connectivity=8)[0] == ["1.", ".1"]
    assert regions(drawing, [(0, 0)], connectivity=4)[0] == ["1.", ".2"]


def slow_regions(center, distance, structure):
    """The written rules one voxel at a time; centers hold 0 outside the foreground."""
    components, n_components = ndimage.label(center > 0, structure)
    pieces = []
    for k in np.unique(center[center > 0]):
        labels, n = ndimage.label(center == k, structure)
        pieces += [(k, labels == i) for i in range(1, n + 1)]
    home = {}
    for k in np.unique(center[center > 0]):
        at = min(zip(*np.nonzero(center == k), strict=True), key=lambda v: distance[v])
        home[k] = components[at]
    owner = np.zeros(center.shape, int)
    for k in sorted(home):
        mine = [p for c, p in pieces if c == k and components[p][0] == home[k]]
        main = max(mine, key=lambda p: (p.sum(), -distance[p].min()))
        owner[main] = k
    for c in range(1, n_components + 1):
        if not owner[components == c].any():
            owner[components == c] = 1000 + c
    loose = [p for _, p in pieces if not owner[p].any()]
    steps = np.argwhere(structure) - 1
    while loose:
        before, left = owner.copy(), []
        for piece in loose:
            votes = {}
            for v in zip(*np.nonzero(piece), strict=True):
                for s in steps:
                    w = tuple(np.array(v) + s)
                    if all(0 <= a < n for a, n in zip(w, center.shape, strict=True)) and before[w]:
                        votes[before[w]] = votes.get(before[w], 0) + 1
            if votes:
                owner[piece] = min(votes, key=lambda o: (-votes[o], o))
            else:
                left.append(piece)
        loose = left
    return owner


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    case=st.sampled_from([((12, 13), 4), ((12, 13), 8), ((6, 7, 6), 6), ((6, 7, 6), 18), ((6, 7, 6), 26)]),
    n_centers=st.integers(1, 6),
    density=st.sampled_from([0.3, 0.6, 0.95]),
)
def test_matches_the_rules_applied_one_voxel_at_a_time(seed, case, n_centers, density):
    shape, connectivity = case
    rng = np.random.default_rng(seed)
    foreground = rng.random(shape) < density
    # Half of the voxels at random: many fragments.
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    positions = rng.uniform(0, 1, (n_centers, len(shape))) * shape
    nearest = np.linalg.norm(at[..., None, :] - positions, axis=-1).argmin(axis=-1) + 1
    center = np.where(rng.random(shape) < 0.5, nearest, rng.integers(1, n_centers + 1, shape)) * foreground
    distance = np.linalg.norm(at - positions[np.maximum(center, 1) - 1], axis=-1)
    voxels = Voxels.of(foreground)
    index = tuple(voxels.coordinates.T)
    found = connected_regions(
        voxels, Assignment(center[index].astype(np.int64), distance[index], np.ones(n_centers)), connectivity
    )
    rank = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[connectivity]
    expected = slow_regions(center, distance, ndimage.generate_binary_structure(len(shape), rank))[index]
    pairs = set(zip(found.instance.tolist(), expected.tolist(), strict=True))
    assert len(pairs) == len(set(found.instance.tolist())) == len(set(expected.tolist()))
