"""Surface distances with values from geometry."""

import numpy as np
import pytest

from nnunetv2_conflunet.evaluation.metrics import surfaces
from nnunetv2_conflunet.evaluation.metrics.case import assess
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.evaluation.metrics.settings import CaseSettings
from nnunetv2_conflunet.utilities.errors import InputError


def distances(prediction, reference, spacing_mm, tolerance_mm):
    case = assess(Foreground.of(prediction, reference), spacing_mm, CaseSettings())
    return surfaces.surface_distances(case.foreground, case.matches, spacing_mm, tolerance_mm)


def test_a_shifted_plate_is_as_far_away_as_its_shift():
    pytest.importorskip("surface_distance")
    # Plates of 60 x 60 x 6 mm shifted by 3 mm: the faces, 7200 of 8640 mm2, are 3 mm away; half of the rim is shared.
    reference = np.zeros((10, 64, 64), np.int32)
    reference[3:5, 2:62, 2:62] = 5
    prediction = np.roll(reference, 1, axis=0)
    found = distances(prediction, reference, (3.0, 1.0, 1.0), 1.0)
    assert found["HD95_mm"] == pytest.approx([3.0])
    assert 3 * 7200 / 8640 <= found["ASD_mm"][0] <= 3 * (8640 - 720) / 8640
    assert 0 < found["NSD"][0] <= 1440 / 8640
    assert distances(prediction, reference, (3.0, 1.0, 1.0), 3.0)["NSD"] == pytest.approx([1.0])


def test_identical_lesions_in_the_plane_and_in_space():
    pytest.importorskip("surface_distance")
    for shape in ((9, 9), (9, 9, 9)):
        instances = np.zeros(shape, np.int32)
        instances[2:4], instances[6:9] = 1, 2
        found = distances(instances, instances, (1.0,) * len(shape), 1.0)
        assert found["ASD_mm"].tolist() == found["HD95_mm"].tolist() == [0, 0] and found["NSD"].tolist() == [1, 1]


def test_the_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "surface_distance", None)
    with pytest.raises(InputError, match="pip install surface-distance"):
        surfaces.require_surface_distance()
