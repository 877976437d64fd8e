"""The grid of one case against making and evaluating every point by the public functions."""

from dataclasses import replace

import numpy as np
import pytest
from noisy_cases import noisy_case, one_by_one

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.merging import DEFAULT_RULE
from nnunetv2_conflunet.tuning import Grid
from nnunetv2_conflunet.tuning.scoring import CaseArrays, score_grid
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

GRID = Grid(
    heatmap_threshold=(0.05, 0.2, 0.5),
    window_mm=(3, 6),
    min_prominence=(0, 0.1, 0.4),
    min_consistency=(0, 1, 3),
    min_volume_mm3=(5, 14, 60),
    min_extent_mm=(1, 3, 6),
)


@pytest.mark.parametrize(
    "scoring", [EvaluationSettings(), EvaluationSettings(min_volume_mm3=0, min_extent_mm=0, iou_threshold=0.4)]
)
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"connectivity": 6}, {"pieces": "climbing"}])
@pytest.mark.parametrize("shape, spacing_mm", [((16, 28, 26), (2.0, 1.0, 1.2)), ((1, 40, 44), (999.0, 1.0, 1.0))])
@pytest.mark.filterwarnings("ignore:.*top_k keeps")
def test_every_point_scores_as_if_made_alone(shape, spacing_mm, options, scoring):
    flat = shape[0] == 1
    foreground, reference, heatmap, offsets_mm = noisy_case(shape[flat:], np.array(spacing_mm[flat:]), seed=sum(shape))
    heads = {"heatmap": heatmap.reshape(shape), "offsets_mm": offsets_mm.reshape(-1, *shape), "heads_box": None}
    foreground, reference = foreground.reshape(shape), reference.reshape(shape)
    points = GRID.points(InstantiationSettings(**options))
    scores, n_lesions = score_grid(CaseArrays(foreground, reference, spacing_mm, heads), points, scoring)
    expected = one_by_one(foreground, reference, spacing_mm, heads, points, scoring)
    np.testing.assert_array_equal(scores, expected)
    assert len(np.unique(scores[:, 0])) > 1
    assert 0 < n_lesions <= 10


@pytest.mark.parametrize("merge", [None, DEFAULT_RULE])
@pytest.mark.parametrize("pieces", ["offsets", "climbing"])
@pytest.mark.parametrize("shape, spacing_mm", [((16, 28, 26), (2.0, 1.0, 1.2)), ((1, 40, 44), (999.0, 1.0, 1.0))])
def test_every_least_confidence_scores_as_if_made_alone(shape, spacing_mm, pieces, merge):
    flat = shape[0] == 1
    foreground, reference, heatmap, offsets_mm = noisy_case(shape[flat:], np.array(spacing_mm[flat:]), seed=3)
    heads = {"heatmap": heatmap.reshape(shape), "offsets_mm": offsets_mm.reshape(-1, *shape), "heads_box": None}
    foreground, reference = foreground.reshape(shape), reference.reshape(shape)
    probability = np.random.default_rng(0).uniform(0.5, 1, shape).astype(np.float32)
    default = InstantiationSettings(pieces=pieces, merge=merge)
    points = [replace(default, min_confidence=value) for value in (0.0, 0.6, 0.9, 0.93, 0.95, 0.96, 0.97)]
    case = CaseArrays(foreground, reference, spacing_mm, heads, probability)
    scores, _ = score_grid(case, points, EvaluationSettings())
    expected = one_by_one(foreground, reference, spacing_mm, heads, points, EvaluationSettings(), probability)
    np.testing.assert_array_equal(scores, expected)
    assert len(np.unique(scores[:, 1])) > 2


@pytest.mark.parametrize("prominences", [(0,), (0, 0.1)])
def test_without_prominence_every_peak_counts(prominences):
    # In a window of 5 mm the maximum of 0.6 is no peak, the shoulder of 0.5 behind it is one.
    shape = (5, 20)
    foreground, heatmap = np.zeros(shape, bool), np.zeros(shape, np.float32)
    foreground[1:4, 1:19] = True
    heatmap[2, 1:10] = 0.7, 0.55, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5
    reference = np.where(foreground, 1 + (np.arange(20) > 4), 0)
    heads = {"heatmap": heatmap, "offsets_mm": np.zeros((2, *shape)), "heads_box": None}
    grid = Grid((0.1,), window_mm=(5,), min_prominence=prominences, min_volume_mm3=(0,), min_extent_mm=(0,))
    points = grid.points(InstantiationSettings())
    scores, _ = score_grid(CaseArrays(foreground, reference, (1, 1), heads), points, EvaluationSettings())
    np.testing.assert_array_equal(
        scores, one_by_one(foreground, reference, (1, 1), heads, points, EvaluationSettings())
    )
    found = instantiate(foreground, (1, 1), points[0], heatmap=heatmap, offsets_mm=heads["offsets_mm"])
    assert found.report["n_centers"] == 2


def test_heads_on_a_coarser_grid_of_a_part_of_the_image():
    foreground, reference, heatmap, offsets_mm = noisy_case((16, 28, 26), np.ones(3), seed=0)
    heads = {
        "heatmap": heatmap[2:14:2, ::2, ::2],
        "offsets_mm": offsets_mm[:, 2:14:2, ::2, ::2],
        "heads_box": np.array([(2, 14), (0, 28), (0, 26)]),
    }
    points = GRID.points(InstantiationSettings())
    scores, _ = score_grid(CaseArrays(foreground, reference, (1, 1, 1), heads), points, EvaluationSettings())
    np.testing.assert_array_equal(
        scores, one_by_one(foreground, reference, (1, 1, 1), heads, points, EvaluationSettings())
    )


def test_cases_without_prediction_or_reference(toys):
    points = GRID.points(InstantiationSettings())
    full, empty = toys.scene(), toys.scene(empty=True)
    for foreground, reference, expected in (
        (empty, full, 0.0),
        (full, empty, 0.0),
        # Undefined, as the evaluation has it.
        (empty, empty, np.nan),
    ):
        heads = {"heatmap": full.heatmap, "offsets_mm": np.zeros((3, *toys.shape)), "heads_box": None}
        scores, n_lesions = score_grid(
            CaseArrays(foreground.segmentation > 0, reference.reference, (1, 1, 1), heads), points, EvaluationSettings()
        )
        np.testing.assert_array_equal(scores, np.full((len(points), 2), expected))
        assert n_lesions == len(np.unique(reference.reference)) - 1


def test_heads_that_cannot_be_used(toys):
    made = toys.scene()
    heads = {"heatmap": made.heatmap * np.nan, "offsets_mm": np.zeros((3, *toys.shape)), "heads_box": None}
    with pytest.raises(InputError, match="heatmap holds"):
        score_grid(
            CaseArrays(made.segmentation > 0, made.reference, (1, 1, 1), heads),
            [InstantiationSettings()],
            EvaluationSettings(),
        )


def test_areas_of_planes_score_as_if_made_alone():
    shape = (1, 40, 44)
    foreground, reference, heatmap, offsets_mm = noisy_case(shape[1:], np.ones(2), seed=5)
    heads = {"heatmap": heatmap.reshape(shape), "offsets_mm": offsets_mm.reshape(-1, *shape), "heads_box": None}
    foreground, reference = foreground.reshape(shape), reference.reshape(shape)
    grid = Grid((0.1,), (3,), (0,), (0,), min_volume_mm3=(), min_extent_mm=(1,), min_area_mm2=(0, 9, 20, 40))
    points = grid.around(InstantiationSettings()).points(InstantiationSettings())
    spacing_mm, scoring = (999.0, 1.0, 1.0), EvaluationSettings(min_extent_mm=0, min_area_mm2=4)
    scores, _ = score_grid(CaseArrays(foreground, reference, spacing_mm, heads), points, scoring)
    np.testing.assert_array_equal(scores, one_by_one(foreground, reference, spacing_mm, heads, points, scoring))
    assert len(np.unique(scores[:, 1])) > 2


def test_a_spacing_at_which_no_lesion_can_stay_is_refused():
    heads = {"heatmap": np.zeros((4, 5, 6)), "offsets_mm": np.zeros((3, 4, 5, 6)), "heads_box": None}
    mask = np.ones((4, 5, 6), bool)
    with pytest.raises(InputError, match="the size filter would remove every instance"):
        score_grid(
            CaseArrays(mask, mask.astype(int), (0.001,) * 3, heads), [InstantiationSettings()], EvaluationSettings()
        )
