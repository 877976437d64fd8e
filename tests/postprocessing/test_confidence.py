"""The confidence of instances, and the filter that it is for."""

import numpy as np
import pytest

from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.pieces import instance_confidence
from nnunetv2_conflunet.utilities.errors import InputError

UNFILTERED = {"min_volume_mm3": 0, "min_extent_mm": 0}


def test_it_is_the_90th_percentile_of_the_probability():
    rng = np.random.default_rng(0)
    instance = rng.permutation(np.repeat(np.arange(1, 30), rng.integers(1, 25, 29)))
    probability = rng.random(len(instance)).astype(np.float32)
    expected = [np.percentile(probability[instance == i], 90) for i in range(1, 30)]
    assert instance_confidence(instance, probability).tolist() == pytest.approx(expected, rel=1e-6)


def test_without_a_probability_it_is_unknown():
    assert np.isnan(instance_confidence(np.array([1, 2]), None)).tolist() == [True, True]
    assert instance_confidence(np.zeros(0, int), None).shape == (0,)
    assert instance_confidence(np.zeros(0, int), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("method", ["cc", "watershed"])
@pytest.mark.parametrize("shape", [(3, 12), (1, 3, 12), (2, 3, 12)])
def test_unsure_instances_are_removed_after_the_size_filter(shape, method):
    probability = np.zeros(shape)
    probability[..., 0:3], probability[..., 4:7], probability[..., 8] = 0.9, 0.6, 0.95
    settings = {"method": method, "min_volume_mm3": 0, "min_extent_mm": 2}
    spacing_mm = (2.0, 1.0, 1.0)[-len(shape) :]

    def make(**more):
        chosen = InstantiationSettings(**settings, **more)
        return instantiate(probability > 0, spacing_mm, chosen, probability=probability)

    every, sure = make(), make(min_confidence=0.7)
    assert every.confidence.tolist() == pytest.approx([0.9, 0.6])
    assert sure.confidence.tolist() == pytest.approx([0.9])
    assert np.unique(sure.instances[..., 0:3]).tolist() == [1] and not sure.instances[..., 3:].any()
    # The third is too short; the size filter has it.
    assert (sure.report["n_instances_removed"], sure.report["n_instances_below_confidence"]) == (1, 1)
    assert sure.report["n_instances"] == 1 and "n_instances_below_confidence" not in every.report


def test_center_offset_knows_the_confidence_only_with_a_probability():
    foreground, heatmap, offsets_mm = np.ones((1, 6), bool), np.zeros((1, 6)), np.zeros((2, 1, 6))
    heatmap[0, [1, 4]] = 0.8, 0.5
    probability = np.array([[0.8, 0.8, 0.8, 0.4, 0.4, 0.4]])
    heads = {"heatmap": heatmap, "offsets_mm": offsets_mm}
    settings = InstantiationSettings(**UNFILTERED)
    found = instantiate(foreground, (1, 1), settings, **heads, probability=probability)
    assert found.confidence.tolist() == pytest.approx([0.8, 0.4])
    assert np.isnan(instantiate(foreground, (1, 1), settings, **heads).confidence).all()
    settings = InstantiationSettings(**UNFILTERED, min_confidence=0.5)
    found = instantiate(foreground, (1, 1), settings, **heads, probability=probability)
    assert found.instances.tolist() == [[1, 1, 1, 0, 0, 0]] and found.center_score.tolist() == pytest.approx([0.8])
    with pytest.raises(InputError, match="min_confidence needs probability"):
        instantiate(foreground, (1, 1), settings, **heads)


def test_settings_of_an_earlier_version_keep_every_instance():
    stored = InstantiationSettings().to_dict()
    del stored["min_confidence"]
    assert InstantiationSettings.from_dict(stored).min_confidence == 0
    for value in (-0.1, 1, np.nan):
        with pytest.raises(InputError, match="min_confidence is"):
            InstantiationSettings(min_confidence=value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 7.0])
@pytest.mark.parametrize("settings", [{}, {"min_confidence": 0.5}])
def test_what_is_no_probability_is_refused_by_every_method(value, settings):
    probability = np.full((1, 2, 3), 0.5)
    probability[0, 1, 1] = value
    chosen = InstantiationSettings(method="cc", **settings)
    with pytest.raises(InputError, match=r"probability ranges from .* it must lie in \[0, 1\]"):
        instantiate(np.ones((1, 2, 3), bool), (1.0, 1.0, 1.0), chosen, probability=probability)


def test_outside_the_foreground_it_does_not_matter():
    probability, mask = np.full((2, 3), np.nan), np.array([[True, True, False]] * 2)
    probability[mask] = 0.75
    found = instantiate(mask, (1.0, 1.0), InstantiationSettings(method="cc", min_extent_mm=0), probability=probability)
    assert found.confidence.tolist() == [0.75]
