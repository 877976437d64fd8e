"""Slips of annotators: each is found where it is planted, and nothing else is."""

import os
from itertools import combinations, product
from pathlib import Path

import cc3d
import nibabel
import numpy as np
import pytest
from planted import PLANTED, SPACING_MM, planted_slips

from nnunetv2_conflunet.preprocessing.annotation.kinds import KINDS, SlipLimits, count_slips, describe_counts
from nnunetv2_conflunet.preprocessing.annotation.slips import find_slips
from nnunetv2_conflunet.utilities.errors import InputError

X_AXIS = 2


def found_in(instances, spacing_mm=SPACING_MM, limits=None, **others):
    return {(slip.kind, slip.id): slip for slip in find_slips(instances, spacing_mm, limits, **others)}


@pytest.fixture(scope="module")
def planted():
    return found_in(planted_slips(), left_right_axis=X_AXIS, faces=[("low", "high"), *[("-", "-")] * 2])


def test_each_planted_slip_is_found_and_nothing_else(planted):
    assert set(planted) == PLANTED


def test_distances_are_those_between_the_nearest_voxel_centers(planted):
    distances = {slip.id: slip.distance_mm for slip in planted.values() if slip.distance_mm is not None}
    assert distances == {2: 12.0, 3: 64.0, 4: 22.0, 10: 6.0}
    assert all(slip.n_pieces == (2 if slip.id in distances else None) or slip.id == 10 for slip in planted.values())


def test_words_say_what_was_found(planted):
    assert planted["reused_id", 3].text == "2 pieces of 48, 48 voxels, up to 64.0 mm from the largest"
    assert planted["reused_id", 4].text.endswith(", on both sides of the image's middle")
    assert planted["contact", 5].other_id == 6
    assert planted["contact", 5].text == "1 of its voxels and 1 of those of 6 touch"
    assert planted["single_voxel", 7].text == "a lesion of one voxel"
    assert planted["single_voxel", 10].text == "one voxel apart from the rest of 49 voxels"
    assert planted["small", 8].text == "24 mm3, 3 x 2 x 4 mm; limits 14 mm3 and 3 mm"
    assert planted["border", 9].text == "reaches the high"


def test_positions_lie_where_to_look(planted):
    instances = planted_slips()
    assert all(instances[slip.at] == slip.id for slip in planted.values())
    # The corner at which 5 and 6 touch, the outer slice of the image, and the stray voxel.
    assert planted["contact", 5].at == (32, 63, 13)
    assert planted["border", 9].at[0] == 49
    assert planted["single_voxel", 10].at == planted["pieces", 10].at == (31, 76, 76)


def test_without_sides_only_the_distance_tells_that_an_id_was_used_twice():
    found = set(found_in(planted_slips()))
    assert PLANTED - found == {("reused_id", 4)} and found - PLANTED == {("pieces", 4)}


def test_a_piece_near_the_middle_belongs_to_no_side():
    instances = np.zeros((3, 3, 60), np.int32)
    instances[:, :, 15:25] = instances[:, :, 32:45] = 1
    # With voxels of 1 mm, the middle is at 29.5 mm; the nearer ends are 5.5 and 2.5 mm from it.
    assert set(found_in(instances, (3, 3, 1), left_right_axis=2)) == {("pieces", 1), ("border", 1)}
    instances[:, :, 32:35] = 0
    assert set(found_in(instances, (3, 3, 1), left_right_axis=2)) == {("reused_id", 1), ("border", 1)}


def test_limits_are_settings():
    limits = SlipLimits(min_volume_mm3=0, min_extent_mm=0, far_apart_mm=70)
    found = set(found_in(planted_slips(), limits=limits))
    assert ("small", 8) not in found and ("pieces", 3) in found
    assert ("small", 1) in set(found_in(planted_slips(), limits=SlipLimits(min_volume_mm3=1000)))
    for wrong in ({"far_apart_mm": 0}, {"min_volume_mm3": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            SlipLimits(**wrong)


def test_a_plane_has_areas_and_four_borders():
    plane = np.zeros((20, 30), np.int32)
    plane[0, 3:9], plane[5:9, 5:9], plane[9, 9], plane[15, 20:24], plane[12, 12] = 4, 1, 2, 3, 9
    plane[10:12, 10:12] = 2
    limits = SlipLimits(min_area_mm2=2.5, min_extent_mm=0)
    expected = {("border", 4), ("contact", 1), ("single_voxel", 9), ("small", 3)}
    assert set(found_in(plane, (1.0, 0.5), limits)) == expected
    volume = found_in(plane[None], (99.0, 1.0, 0.5), limits)
    assert set(volume) == expected and volume["single_voxel", 9].at == (0, 12, 12)


def test_a_speck_beside_a_lesion_is_no_contact():
    instances = np.zeros((9, 9, 9), np.int32)
    instances[2:6, 2:6, 2:6], instances[6, 6, 6] = 1, 2
    assert set(found_in(instances, (1, 1, 1))) == {("single_voxel", 2)}


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 4, 5), (1, 4, 5), (4, 5)])
def test_no_lesion_has_no_slips(shape):
    assert find_slips(np.zeros(shape, np.int32), (1.0,) * len(shape)) == []


def slow_pieces(mask):
    """Connected pieces, each a set of voxels, by flooding."""
    left = set(map(tuple, np.argwhere(mask).tolist()))
    pieces = []
    while left:
        piece, edge = set(), [min(left)]
        while edge:
            at = edge.pop()
            if at in left:
                left.remove(at)
                piece.add(at)
                edge += [tuple(np.add(at, step)) for step in product((-1, 0, 1), repeat=mask.ndim)]
        pieces.append(piece)
    return pieces


def slow_slips(instances, spacing_mm, limits):
    """Kinds and ids, one voxel after another."""
    found = set()
    ids = [int(i) for i in np.unique(instances) if i]
    voxels = {i: np.argwhere(instances == i) for i in ids}
    for i in ids:
        pieces = sorted(slow_pieces(instances == i), key=lambda piece: (-len(piece), min(piece)))
        if len(pieces) > 1:
            main = np.array(sorted(pieces[0])) * spacing_mm
            apart = max(
                min(np.linalg.norm(main - np.array(at) * spacing_mm, axis=1).min() for at in piece)
                for piece in pieces[1:]
            )
            found.add(("reused_id" if round(apart, 2) > limits.far_apart_mm else "pieces", i))
        if any(len(piece) == 1 for piece in pieces):
            found.add(("single_voxel", i))
        extent = (np.ptp(voxels[i], axis=0) + 1) * spacing_mm
        too_small = len(voxels[i]) * np.prod(spacing_mm) < limits.min_volume_mm3
        if len(voxels[i]) > 1 and (too_small or (extent < limits.min_extent_mm).any()):
            found.add(("small", i))
        if (voxels[i] == 0).any() or (voxels[i] == np.array(instances.shape) - 1).any():
            found.add(("border", i))
    for a, b in combinations(ids, 2):
        near = [(p, q) for p in voxels[a].tolist() for q in voxels[b].tolist() if np.abs(np.subtract(p, q)).max() <= 1]
        sides = [len({tuple(pair[side]) for pair in near}) for side in (0, 1)]
        if min(sides) == 1 and min(len(voxels[a]), len(voxels[b])) > 1:
            found.add(("contact", a))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_random_maps_are_judged_as_by_a_slow_search(seed):
    rng = np.random.default_rng(seed)
    shape, spacing_mm = tuple(rng.integers(5, 10, 3)), np.array([2.0, 1.0, 0.75])
    instances = np.zeros(shape, np.int32)
    for _ in range(7):
        start = [rng.integers(0, n) for n in shape]
        instances[tuple(slice(a, a + rng.integers(1, 4)) for a in start)] = rng.integers(1, 6) * 1000
    limits = SlipLimits(min_volume_mm3=6.0, min_extent_mm=1.5, far_apart_mm=4.0)
    assert set(found_in(instances, spacing_mm, limits)) == slow_slips(instances, spacing_mm, limits)


def test_findings_are_listed_by_kind_and_id_and_counted():
    slips = find_slips(planted_slips(), SPACING_MM, left_right_axis=X_AXIS)
    order = [(list(KINDS).index(slip.kind), slip.id) for slip in slips]
    assert order == sorted(order)
    counts = count_slips(slips)
    assert counts == {"reused_id": 2, "pieces": 2, "contact": 1, "single_voxel": 2, "small": 1, "border": 1}
    assert describe_counts([counts, counts, {}]).startswith("one id on lesions far apart: 4 in 2 cases; ")
    assert describe_counts([{}]) == ""


def test_components_of_real_masks_are_in_one_piece_and_touch_nothing():
    folder = os.environ.get("CONFLUNET_OPEN_MS")
    if not folder:
        pytest.skip("CONFLUNET_OPEN_MS names no folder with open_ms masks (gold/patientNN.nii.gz)")
    for path in sorted(Path(folder).glob("gold/*.nii.gz")):
        mask = np.asarray(nibabel.load(path).dataobj) > 0
        components = cc3d.connected_components(mask.astype(np.uint8), connectivity=26)
        counts = count_slips(find_slips(components.astype(np.int32), (1.0, 1.0, 1.0)))
        sizes = np.bincount(components.ravel())[1:]
        assert set(counts) <= {"single_voxel", "small", "border"}
        assert counts.get("single_voxel", 0) == np.count_nonzero(sizes == 1)
        assert counts.get("small", 0) >= np.count_nonzero((sizes > 1) & (sizes < 14))
