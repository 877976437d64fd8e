"""What cannot be used ends in one sentence that names the argument."""

import numpy as np
import pytest

from nnunetv2_conflunet.postprocessing import (
    InstantiationSettings,
    instantiate,
    instantiate_acls,
    instantiate_cc,
    instantiate_center_offset,
    remove_small_instances,
)
from nnunetv2_conflunet.utilities.errors import InputError

SHAPE = (4, 5, 6)
MASK = np.ones(SHAPE, bool)
HEATMAP = np.zeros(SHAPE, np.float32)
OFFSETS = np.zeros((3, *SHAPE), np.float32)


def broken(array, value):
    array = array.copy()
    array.flat[7] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heatmap": HEATMAP[0]}, r"heatmap has shape \(5, 6\)"),
        ({"heatmap": HEATMAP[:0], "offsets_mm": OFFSETS[:, :0]}, r"heatmap has shape \(0, 5, 6\)"),
        ({"offsets_mm": OFFSETS[:2]}, r"offsets_mm has shape \(2, 4, 5, 6\).*\(3, 4, 5, 6\)"),
        ({"offsets_mm": OFFSETS[:, 1:]}, r"offsets_mm has shape \(3, 3, 5, 6\)"),
        ({"heatmap": broken(HEATMAP, np.nan)}, "heatmap holds 1 NaN or infinite"),
        ({"offsets_mm": broken(OFFSETS, np.inf)}, r"offsets_mm\[0\] holds 1 NaN or infinite"),
        ({"spacing_mm": (1, 1)}, r"spacing_mm \(1, 1\) must hold one value for each of the 3 axes"),
        ({"spacing_mm": (1, 0, 1)}, r"spacing_mm \(1.0, 0.0, 1.0\) must hold positive"),
        ({"spacing_mm": (1, np.nan, 1)}, "must hold positive"),
        ({"foreground": MASK[None]}, r"foreground has shape \(1, 4, 5, 6\)"),
        ({"foreground": MASK * 0.7}, "foreground .* whole numbers; threshold it"),
        ({"foreground": broken(MASK.astype(float), np.nan)}, "foreground .* whole numbers"),
        ({"heatmap_threshold": 0}, "heatmap_threshold is 0"),
        ({"heatmap_threshold": float("nan")}, "heatmap_threshold is nan"),
        ({"window_mm": -1}, "window_mm is -1"),
        ({"min_prominence": 1}, "min_prominence is 1; it must be at least 0 and below 1"),
        ({"min_prominence": -0.1}, "min_prominence is -0.1"),
        ({"min_prominence": float("nan")}, "min_prominence is nan"),
        ({"min_consistency": -1}, "min_consistency is -1"),
        ({"min_consistency": float("inf")}, "min_consistency is inf"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 2.0}, "top_k is 2.0"),
        ({"connectivity": 12}, "connectivity is 12"),
        ({"connectivity": 8}, "connectivity is 8; it must be one of 6, 18, 26"),
        ({"heads_box": [(0, 4), (0, 5), (0, 7)]}, r"heads_box .* inside \(4, 5, 6\)"),
        ({"heads_box": [(0, 4), (0, 5)]}, "heads_box"),
    ],
)
def test_center_offset(change, message):
    arguments = {"foreground": MASK, "heatmap": HEATMAP, "offsets_mm": OFFSETS, "spacing_mm": (1, 1, 1)} | change
    with pytest.raises(InputError, match=message):
        instantiate_center_offset(**arguments)


def test_a_slice_with_heads_of_a_volume():
    with pytest.raises(InputError, match="single slice"):
        instantiate_center_offset(MASK[:1], HEATMAP, OFFSETS, (1, 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": HEATMAP + 1.5}, r"ranges from 1.5 to 1.5; it must lie in \[0, 1\]"),
        ({"probability": HEATMAP - 0.5}, "ranges from -0.5"),
        ({"probability": broken(HEATMAP, np.nan)}, "ranges from nan"),
        ({"probability": OFFSETS}, r"probability has shape \(3, 4, 5, 6\).*sum the foreground channels"),
        ({"foreground": MASK[1:]}, r"foreground has shape \(3, 5, 6\) but probability has \(4, 5, 6\)"),
        ({"preset": "lou"}, "acls_preset is 'lou'; it must be one of lou2021, dworkin2018"),
        ({"threshold": 2}, "threshold is 2"),
        ({"spacing_mm": (0, 1, 1)}, "spacing_mm"),
    ],
)
def test_acls(change, message):
    with pytest.raises(InputError, match=message):
        instantiate_acls(**({"probability": HEATMAP} | change))


def test_rounded_softmax_sums_are_probabilities():
    assert instantiate_acls(np.full(SHAPE, np.float32(1.0000002))).any()


def test_connected_components():
    with pytest.raises(InputError, match="connectivity is 7"):
        instantiate_cc(MASK, connectivity=7)
    with pytest.raises(InputError, match="connectivity is 5; it must be one of 4, 6, 8"):
        instantiate_cc(MASK[0], connectivity=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instances": MASK * 0.5}, "instances is float64"),
        ({"instances": -1 * MASK}, "negative ids"),
        ({"instances": MASK * 2**40}, "above 2147483647"),
        ({"spacing_mm": (1, 1)}, "spacing_mm"),
        ({"min_volume_mm3": -1}, "min_volume_mm3 is -1"),
        ({"min_extent_mm": float("nan")}, "min_extent_mm is nan"),
    ],
)
def test_size_filter(change, message):
    with pytest.raises(InputError, match=message):
        remove_small_instances(**({"instances": MASK.astype(int), "spacing_mm": (1, 1, 1)} | change))


@pytest.mark.parametrize(
    ("method", "missing"),
    [("center_offset", "heatmap and offsets_mm"), ("acls", "probability"), ("border_core", "core")],
)
def test_the_pipeline_names_what_a_method_needs(method, missing):
    with pytest.raises(InputError, match=f"{method} needs {missing}"):
        instantiate(MASK, (1, 1, 1), InstantiationSettings(method=method))


def test_settings_go_to_a_dictionary_and_back():
    settings = InstantiationSettings(
        method="acls", pieces="climbing", acls_preset="dworkin2018", top_k=7, min_volume_mm3=5.5
    )
    assert InstantiationSettings.from_dict(settings.to_dict()) == settings
    assert InstantiationSettings.from_dict({}) == InstantiationSettings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0.5, "method": "cc"}, "Unknown instantiation settings threshold; known are method, "),
        ({"method": "other"}, "method is 'other'; it must be one of center_offset, cc, acls, watershed, border_core"),
        ({"pieces": "watershed"}, "pieces is 'watershed'; it must be one of offsets, climbing"),
        ({"window_mm": "3"}, "window_mm is '3'"),
        ({"min_prominence": "0.1"}, "min_prominence is '0.1'"),
        ({"heatmap_threshold": True}, "heatmap_threshold is True"),
        ({"min_volume_mm3": float("inf")}, "min_volume_mm3 is inf"),
        ([1], "must be a dictionary"),
    ],
)
def test_settings_refuse_what_they_do_not_know(values, message):
    with pytest.raises(InputError, match=message):
        InstantiationSettings.from_dict(values)
