"""Pieces without voxels against making and evaluating instances voxel by voxel."""

from dataclasses import fields, replace

import numpy as np
import pytest
from noisy_cases import noisy_case, one_by_one

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import FEATURES, MergeRule
from nnunetv2_conflunet.postprocessing.piece_graph import PieceGraph
from nnunetv2_conflunet.tuning import case_pieces
from nnunetv2_conflunet.tuning.case_pieces import CasePieces, load_pieces, pieces_of_case, save_pieces
from nnunetv2_conflunet.tuning.scoring import CaseArrays, InstancesAtPoints
from nnunetv2_conflunet.utilities.errors import InputError

SETTINGS = [
    InstantiationSettings(heatmap_threshold=0.2),
    InstantiationSettings(pieces="climbing", heatmap_threshold=0.3),
]


def random_rule(rng):
    return MergeRule(rng.uniform(), *rng.normal(size=3), *rng.normal(size=5) / 4)


def arrays_of(shape, spacing_mm, seed):
    foreground, reference, heatmap, offsets_mm = noisy_case(shape, spacing_mm, seed)
    return CaseArrays(foreground, reference, spacing_mm, {"heatmap": heatmap, "offsets_mm": offsets_mm})


@pytest.mark.parametrize(
    "shape, spacing_mm, scoring",
    [
        ((24, 28, 26), (1.0, 1.0, 1.0), EvaluationSettings()),
        ((12, 28, 26), (3.0, 1.0, 1.0), EvaluationSettings(matching="hungarian", iou_threshold=0.3)),
        ((40, 44), (1.0, 1.5), EvaluationSettings(min_extent_mm=4, min_area_mm2=30)),
        ((24, 28, 26), (1.0, 1.0, 1.0), EvaluationSettings(unknown=4)),
        ((40, 44), (1.0, 1.5), EvaluationSettings(unknown=7, min_area_mm2=30)),
    ],
    ids=["3d", "anisotropic", "2d", "3d with unknown instances", "2d with unknown instances"],
)
def test_scores_are_those_of_the_instances(shape, spacing_mm, scoring):
    rng, differing = np.random.default_rng(0), 0
    for seed in range(6):
        case = arrays_of(shape, spacing_mm, seed)
        for settings, pieces in zip(SETTINGS, pieces_of_case(case, SETTINGS, scoring), strict=True):
            points = [settings, *(replace(settings, merge=random_rule(rng)) for _ in range(4))]
            expected = one_by_one(case.foreground, case.reference, spacing_mm, case.heads, points, scoring)
            found = np.array([pieces.score(point, scoring) for point in points])
            np.testing.assert_allclose(found, expected, rtol=1e-12)
            differing += len(np.unique(expected[:, 0]))
    # Merging has made a difference.
    assert differing > 2 * 12


def test_the_graph_is_that_of_the_voxels():
    case = arrays_of((24, 28, 26), (1.0, 1.0, 1.0), 3)
    (pieces,) = pieces_of_case(case, SETTINGS[:1], EvaluationSettings())
    made = InstancesAtPoints(case, SETTINGS[:1], EvaluationSettings())
    graph = PieceGraph.of(made.voxels, made.pieces(SETTINGS[0]).instance - 1, made.heads, made.connectivity)
    touching = graph.pairs()
    assert len(touching) == 5
    np.testing.assert_array_equal(pieces.touching, touching)
    np.testing.assert_array_equal(pieces.features, graph.features(touching))
    merged = [pieces.graph(), graph]
    for one in merged:
        one.merge(*touching[0])
    np.testing.assert_array_equal(merged[0].features(merged[0].pairs()), graph.features(graph.pairs()))


def test_which_pieces_are_of_one_lesion():
    # Three strips of 4 x 3 pixels, of which the first two are one lesion, all but one pixel.
    reference = np.repeat([[7, 7, 7, 7, 7, 7, 9, 9, 9]], 4, axis=0)
    reference[0, 5] = 9
    heatmap = np.zeros((4, 9), np.float32)
    heatmap[1, [1, 4, 7]] = 0.9
    heads = {"heatmap": heatmap, "offsets_mm": np.zeros((2, 4, 9), np.float32)}
    case = CaseArrays(reference > 0, reference, (1.0, 1.0), heads)
    (pieces,) = pieces_of_case(case, [InstantiationSettings()], EvaluationSettings())
    assert pieces.touching.tolist() == [[0, 1], [1, 2]] and pieces.of_one_lesion.tolist() == [True, False]
    assert pieces.near.tolist() == [[0, 1], [0, 2], [1, 2]] and pieces.lesion_voxels.tolist() == [23, 13]
    assert pieces.overlap.tolist() == [[0, 0, 12], [1, 0, 11], [1, 1, 1], [2, 1, 12]]
    # Outside of every lesion a piece has none.
    nowhere = CaseArrays(reference > 0, np.zeros_like(reference), (1.0, 1.0), heads)
    (pieces,) = pieces_of_case(nowhere, [InstantiationSettings()], EvaluationSettings())
    assert pieces.main_lesions.tolist() == [-1, -1, -1] and not pieces.of_one_lesion.any()


def test_pieces_on_unknown_instances_teach_nothing():
    # Four strips of 4 x 3 pixels: one lesion, half and half, unknown, unknown.
    reference = np.repeat([[7, 7, 7, 7, 7, 9, 9, 9, 9, 9, 9, 9]], 4, axis=0)
    reference[:2, 4] = 9
    heatmap = np.zeros((4, 12), np.float32)
    heatmap[1, [1, 4, 7, 10]] = 0.9
    heads = {"heatmap": heatmap, "offsets_mm": np.zeros((2, 4, 12), np.float32)}
    case = CaseArrays(reference > 0, reference, (1.0, 1.0), heads)
    (pieces,) = pieces_of_case(case, [InstantiationSettings()], EvaluationSettings(unknown=9))
    # The second strip has six pixels of the lesion and six unknown ones, which is a tie.
    assert pieces.unknown_voxels.tolist() == [0, 6, 12, 12] and pieces.overlap.tolist() == [[0, 0, 12], [1, 0, 6]]
    assert len(pieces.touching) == 3 and pieces.teaching.tolist() == [] and len(pieces.features) == 0
    reference[2, 5] = 7
    (pieces,) = pieces_of_case(case, [InstantiationSettings()], EvaluationSettings(unknown=9))
    assert pieces.teaching.tolist() == [[0, 1]] and pieces.of_one_lesion.tolist() == [True]
    assert pieces.features.shape == (1, len(FEATURES))


def test_pieces_of_an_earlier_version_are_refused(tmp_path, monkeypatch):
    pieces = pieces_of_case(arrays_of((24, 28, 26), (1.0, 1.0, 1.0), 0), SETTINGS, EvaluationSettings())
    with monkeypatch.context() as earlier:
        earlier.setattr(case_pieces, "FORMAT", 1)
        save_pieces(tmp_path / "case0.npz", SETTINGS, pieces)
    with pytest.raises(InputError, match="validate its fold again"):
        load_pieces(tmp_path / "case0.npz", SETTINGS)


@pytest.mark.parametrize("what", ["foreground", "reference"])
def test_a_case_without_lesions(what):
    case = arrays_of((12, 14, 13), (1.0, 1.0, 1.0), 0)
    case = replace(case, **{what: np.zeros_like(getattr(case, what))})
    for settings, pieces in zip(SETTINGS, pieces_of_case(case, SETTINGS, EvaluationSettings()), strict=True):
        point = replace(settings, merge=random_rule(np.random.default_rng(0)))
        expected = one_by_one(case.foreground, case.reference, (1.0,) * 3, case.heads, [point], EvaluationSettings())
        np.testing.assert_array_equal(pieces.score(point, EvaluationSettings()), expected[0])
        assert not pieces.of_one_lesion.any()


def test_files_hold_all_of_it_and_are_small(tmp_path):
    case = arrays_of((24, 28, 26), (1.0, 1.0, 1.0), 0)
    pieces = pieces_of_case(case, SETTINGS, EvaluationSettings())
    save_pieces(tmp_path / "case0.npz", SETTINGS, pieces)
    for before, after in zip(pieces, load_pieces(tmp_path / "case0.npz", SETTINGS), strict=True):
        for field in fields(CasePieces):
            np.testing.assert_array_equal(getattr(after, field.name), getattr(before, field.name))
    assert (tmp_path / "case0.npz").stat().st_size < case.foreground.size
    with pytest.raises(InputError, match="pieces of other settings"):
        load_pieces(tmp_path / "case0.npz", SETTINGS[::-1])


def test_a_heatmap_of_noise_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(case_pieces, "MOST_PAIRS", 3)
    with pytest.raises(InputError, match="too many to learn from"):
        pieces_of_case(arrays_of((24, 28, 26), (1.0, 1.0, 1.0), 3), SETTINGS, EvaluationSettings())


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "case0.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"case0\.npz cannot be read .*validate its fold again"):
        load_pieces(tmp_path / "case0.npz", SETTINGS)
