"""Merging against hand geometry and against a slow loop that looks at whole arrays."""

import json
from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, distance_transform_edt, generate_binary_structure, label

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate, instantiate_cc
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.merging import FEATURES, MergeRule, merge_regions
from nnunetv2_conflunet.postprocessing.piece_graph import PieceGraph
from nnunetv2_conflunet.postprocessing.pieces import Regions
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.errors import InputError

RULE = MergeRule(0.5, -1.2, 1.6, -3.0, 0.3, -0.2, 0.1, 0.2, 0.7)
UNFILTERED = InstantiationSettings(min_volume_mm3=0, min_extent_mm=0, merge=RULE)


def graph_of(labels, heatmap, offsets_mm, spacing_mm, connectivity):
    voxels = Voxels.of(labels > 0)
    heads = HeadMaps.of(heatmap, offsets_mm, labels.shape, np.array(spacing_mm))
    return PieceGraph.of(voxels, labels[labels > 0] - 1, heads, connectivity), voxels, heads


def test_features_of_two_squares_by_hand():
    """Two squares of 2 x 2 pixels side by side, whose offsets are 0 but that of a corner."""
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    heatmap = np.array([[0.8, 0.3, 0.5, 0.6], [0.1, 0.1, 0.1, 0.1]], np.float32)
    offsets_mm = np.zeros((2, 2, 4), np.float32)
    graph, _, _ = graph_of(labels, heatmap, offsets_mm, (1.0, 1.0), 4)
    assert graph.pairs().tolist() == [[0, 1]]
    (found,) = graph.features(graph.pairs())
    # Votes are positions: means 2 mm apart, each with a variance of 1/4 along both axes; half a pixel is 0.5 mm.
    by_hand = {
        "saddle": 0.3 / 0.6,
        "jump": 1 / 2,
        "vote_separation": 2 / np.sqrt(0.5 + 0.5 + 0.25),
        "log_volume": np.log(4),
        "peak_offset_mm": 0,
        "contact": 2 / np.sqrt(4),
        # Every pixel is one pixel away from what lies beyond the image.
        "neck": 1,
    }
    assert dict(zip(FEATURES, found.tolist(), strict=True)) == pytest.approx(by_hand)
    # The highest pixel of the lower square, in another spacing.
    offsets_mm[:, 0, 3] = (3.0, 4.0)
    graph, _, _ = graph_of(labels, heatmap, offsets_mm, (2.0, 3.0), 8)
    found = dict(zip(FEATURES, graph.features(graph.pairs())[0].tolist(), strict=True))
    assert found["peak_offset_mm"] == pytest.approx(5)
    assert found["log_volume"] == pytest.approx(np.log(4 * 6))
    # Two pairs across an edge and two across a corner, of lengths 3 and sqrt(13) mm.
    assert found["contact"] == pytest.approx(4 / np.sqrt(4))
    apart = np.hypot(3 / 4, 6 + 4 / 4)
    assert found["jump"] == pytest.approx((3 + 3 + 2 * np.sqrt(13)) / 4 / apart)


def test_the_neck_of_two_lesions_joined_by_a_bridge():
    """Squares of 5 x 5 pixels, three deep in the middle, joined by a row of three pixels, the middle one cut in two."""
    labels = np.zeros((9, 17), int)
    labels[2:7, 1:6], labels[2:7, 9:14] = 1, 2
    labels[4, 6:8], labels[4, 8] = 1, 2
    graph, _, _ = graph_of(labels, np.ones(labels.shape), np.zeros((2, *labels.shape)), (2.0, 2.0), 8)
    assert graph.features(graph.pairs())[0][FEATURES.index("neck")] == pytest.approx(1 / 3)
    # With the border beside the middle of the first square: three pixels deep on one side, and on the other as far as
    # from (4, 4) to the corner (3, 6) between square and bridge.
    labels[2:7, 1:4] = 3
    labels = np.where(labels == 3, 1, np.where(labels > 0, 2, 0))
    graph, _, _ = graph_of(labels, np.ones(labels.shape), np.zeros((2, *labels.shape)), (2.0, 2.0), 8)
    assert graph.features(graph.pairs())[0][FEATURES.index("neck")] == pytest.approx(np.sqrt(5) / 3)


def slow_features(labels, heatmap, offsets_mm, spacing, one, other, structure):
    masks = {i: labels == i for i in (one, other)}
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"), axis=-1)
    votes = grid * spacing + np.moveaxis(offsets_mm, 0, -1).astype(float)
    peaks = {i: np.unravel_index(np.where(m, heatmap, -1).argmax(), labels.shape) for i, m in masks.items()}
    low = min((one, other), key=lambda i: (heatmap[peaks[i]], i))
    a, b = (np.array(peaks[i]) for i in (one, other))
    n = np.abs(b - a).max()
    line = [tuple(np.rint(a + t * (b - a)).astype(int)) for t in (np.arange(n + 1) / n if n else [0.0])]
    depths = distance_transform_edt(np.pad(labels > 0, 1), sampling=spacing)[(slice(1, -1),) * labels.ndim]
    jumps, necks = [], []
    for voxel in np.argwhere(masks[one]):
        for step in np.argwhere(structure) - 1:
            there = tuple(voxel + step)
            if all(0 <= i < n for i, n in zip(there, labels.shape, strict=True)) and masks[other][there]:
                jumps.append(np.linalg.norm(votes[tuple(voxel)] - votes[there]))
                necks.append(min(depths[tuple(voxel)], depths[there]))
    means = {i: votes[m].mean(axis=0) for i, m in masks.items()}
    spreads = [((votes[m] - means[i]) ** 2).sum(axis=1).mean() for i, m in masks.items()]
    apart, smaller, half = np.linalg.norm(means[one] - means[other]), min(map(np.sum, masks.values())), min(spacing) / 2
    return [
        min(heatmap[i] for i in line) / max(heatmap[peaks[low]], 1e-3),
        np.mean(jumps) / max(apart, half),
        apart / np.sqrt(sum(spreads) + half**2),
        np.log(smaller * np.prod(spacing)),
        np.linalg.norm(offsets_mm[(slice(None), *peaks[low])]),
        len(jumps) / smaller ** ((labels.ndim - 1) / labels.ndim),
        max(necks) / min(depths[m].max() for m in masks.values()),
    ]


def slow_merging(labels, heatmap, offsets_mm, spacing, rule, structure):
    labels = labels.copy()
    weights = np.array(list(asdict(rule).values())[2:])
    while True:
        found = {}
        for one, other in combinations(np.unique(labels[labels > 0]).tolist(), 2):
            if touch(labels == one, labels == other, structure):
                features = slow_features(labels, heatmap, offsets_mm, spacing, one, other, structure)
                found[one, other] = 1 / (1 + np.exp(-(rule.intercept + weights @ features)))
        if not found or max(found.values()) <= rule.threshold:
            return labels
        one, other = min(found, key=lambda i: (-found[i], i))
        heights = {i: heatmap[labels == i].max() for i in (one, other)}
        stays = one if heights[one] >= heights[other] else other
        labels[np.isin(labels, (one, other))] = stays


def touch(one, other, structure):
    return bool((binary_dilation(one, structure) & other).any())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "shape, spacing, connectivity", [((5, 6, 7), (2.0, 1.0, 1.5), 26), ((5, 6, 7), (1, 1, 1), 6), ((8, 9), (1, 0.5), 8)]
)
def test_the_sure_pairs_are_merged_one_after_the_other(shape, spacing, connectivity, seed):
    rng = np.random.default_rng(seed)
    dim = len(shape)
    structure = generate_binary_structure(dim, 1 if connectivity == 2 * dim else dim)
    # Connected pieces: the components of a random mask, each cut by random planes.
    noise = rng.random(shape)
    cuts = sum((np.arange(n) >= rng.integers(2, n - 1)).reshape(*[-1 if i == a else 1 for i in range(dim)]) * 2**a
               for a, n in enumerate(shape))  # fmt: skip
    labels, n = np.zeros(shape, int), 0
    for value in range(2**dim):
        part, found = label((noise > 0.25) & (cuts == value), structure)
        labels[part > 0] = part[part > 0] + n
        n += found
    order = {old: new + 1 for new, old in enumerate(dict.fromkeys(labels[labels > 0].tolist()))}
    labels = np.vectorize(lambda i: order.get(i, 0))(labels)
    heatmap = rng.random(shape).astype(np.float32)
    offsets_mm = rng.normal(0, 1, (dim, *shape)).astype(np.float32)
    graph, voxels, heads = graph_of(labels, heatmap, offsets_mm, spacing, connectivity)
    regions = Regions(labels[labels > 0], np.arange(1, n + 1), 0, 0)
    # Half of the pairs are sure enough in the beginning.
    weights = list(asdict(RULE).values())[2:]
    rule = replace(RULE, intercept=1e-6 - float(np.median(graph.features(graph.pairs()) @ weights)))
    merged = merge_regions(voxels, regions, heads, rule, connectivity)
    expected = slow_merging(labels, heatmap, offsets_mm, np.array(spacing), rule, structure)[labels > 0]
    assert len(np.unique(expected)) < n
    pairs = {(int(a), int(b)) for a, b in zip(merged.instance, expected, strict=True)}
    assert len(pairs) == len(np.unique(expected)) == len(merged.center)
    # Each instance has the center of the piece with its highest voxel, and ids are in the order of first voxels.
    assert {merged.center[a - 1] for a, _ in pairs} == set(np.unique(expected))
    assert list(dict.fromkeys(merged.instance.tolist())) == list(range(1, len(merged.center) + 1))


def random_scene(seed, shape=(12, 14, 16)):
    rng = np.random.default_rng(seed)
    return rng.random(shape) < 0.35, rng.random(shape).astype(np.float32), rng.normal(0, 2, (len(shape), *shape))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(12, 14, 16), (1, 20, 24), (20, 24)])
def test_a_threshold_of_0_gives_connected_components_and_1_changes_nothing(shape, seed):
    foreground, heatmap, offsets_mm = random_scene(seed, shape)
    arguments = (foreground, (1.0,) * len(shape))
    heads = {"heatmap": heatmap, "offsets_mm": offsets_mm}
    all_merged = instantiate(*arguments, replace(UNFILTERED, merge=replace(RULE, threshold=0.0)), **heads)
    np.testing.assert_array_equal(all_merged.instances, instantiate_cc(foreground))
    none_merged = instantiate(*arguments, replace(UNFILTERED, merge=replace(RULE, threshold=1.0)), **heads)
    without = instantiate(*arguments, replace(UNFILTERED, merge=None), **heads)
    np.testing.assert_array_equal(none_merged.instances, without.instances)
    assert all_merged.report["n_pieces_merged"] == without.report["n_instances"] - all_merged.report["n_instances"]


def test_a_threshold_of_0_merges_what_is_most_unlikely_to_be_one():
    heatmap = np.array([[0.9, 0.1, 0.1, 0.9]])
    # The logistic function of -2000 is 0 in float64.
    rule = MergeRule(0.0, -2000.0, *[0.0] * 6)
    settings = replace(UNFILTERED, merge=rule)
    found = instantiate(np.ones((1, 4)), (1, 1), settings, heatmap=heatmap, offsets_mm=np.zeros((2, 1, 4)))
    assert found.instances.tolist() == [[1, 1, 1, 1]]


def test_an_empty_foreground_has_nothing_to_merge():
    shape = (4, 5, 6)
    found = instantiate(
        np.zeros(shape, bool), (1, 1, 1), UNFILTERED, heatmap=np.zeros(shape), offsets_mm=np.zeros((3, *shape))
    )
    assert not found.instances.any() and found.report["n_pieces_merged"] == 0


def test_a_rule_travels_in_the_settings_as_json():
    settings = json.loads(json.dumps(UNFILTERED.to_dict()))
    assert InstantiationSettings.from_dict(settings) == UNFILTERED
    assert InstantiationSettings.from_dict({}).merge is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"saddle": float("nan")}, "merge: saddle is nan; it must be a finite number"),
        ({"contact": "much"}, "merge: contact is 'much'"),
        ({"threshold": 1.5}, "merge: threshold is 1.5; it must lie in"),
        ({"color": 1.0}, "must have exactly threshold, intercept, saddle, jump"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        InstantiationSettings.from_dict({"merge": asdict(RULE) | change})


def test_a_rule_that_lacks_a_weight_is_refused():
    values = asdict(RULE)
    del values["jump"]
    with pytest.raises(InputError, match=r"merge is .*must have exactly"):
        InstantiationSettings.from_dict({"merge": values})


def test_a_rule_of_an_earlier_version_gives_necks_no_weight():
    stored = asdict(RULE)
    del stored["neck"]
    settings = InstantiationSettings.from_dict({"merge": stored})
    assert settings.merge == replace(RULE, neck=0.0)


def test_necks_are_measured_only_for_a_rule_that_weighs_them():
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    voxels = Voxels.of(labels > 0)
    heads = HeadMaps.of(np.ones(labels.shape), np.zeros((2, *labels.shape)), labels.shape, np.ones(2))
    features = [
        PieceGraph.of(voxels, labels[labels > 0] - 1, heads, 8, with_necks).features(np.array([[0, 1]]))[0]
        for with_necks in (True, False)
    ]
    neck = FEATURES.index("neck")
    assert [one[neck] for one in features] == [1, 0]
    np.testing.assert_array_equal(np.delete(features[0], neck), np.delete(features[1], neck))
