"""Options of an evaluation and their errors."""

import json

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.utilities.errors import InputError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matching": "best"}, "no matching rule 'best'; use one of paper, isbi2024, greedy, hungarian"),
        ({"clu": "eq4"}, "no CLU definition 'eq4'; use one of shared, eq3, published"),
        (
            {"clu": "published", "matching": "greedy"},
            "published CLU metrics use the matching rule 'paper', not 'greedy'",
        ),
        ({"clu": "published", "connectivity": 18}, "published CLU metrics use connectivity 6 and 26, not 18"),
        ({"undefined": "zero"}, "no policy for undefined ratios 'zero'; use one of nan, worst, authors"),
        ({"missing": "ignore"}, "no policy for missing predictions 'ignore'; use one of error, worst, skip"),
        ({"connectivity": 8}, "no connectivity '8'; use one of 6, 18, 26"),
        ({"iou_threshold": 1.0}, "IoU threshold is 1.0; it must be at least 0 and below 1"),
        ({"iou_threshold": np.nan}, "IoU threshold is nan"),
        ({"min_extent_mm": -1}, "smallest extent is -1; it must be 0 or a positive number"),
        ({"min_area_mm2": np.inf}, "smallest area is inf"),
        ({"nsd_tolerance_mm": -0.5}, "tolerance of the surface Dice is -0.5"),
        ({"volume_bins_mm3": (30.0, 30.0)}, r"volume bins are \(30.0, 30.0\); give ascending positive numbers"),
    ],
)
def test_a_value_out_of_range_is_named(options, message):
    with pytest.raises(InputError, match=message):
        EvaluationSettings(**options)


def test_settings_compare_with_what_json_gives_back():
    settings = EvaluationSettings(volume_bins_mm3=(10.0, 20.0))
    assert json.loads(json.dumps(settings.to_json())) == settings.to_json()
