"""Lesions replaced by white matter; texture measured."""

import numpy as np
import pytest
from open_ms.filling import Texture, fill_lesions, measure_texture
from scipy import ndimage


@pytest.mark.parametrize("width_mm", [0.45, 0.7])
def test_texture_is_measured_as_it_was_made(width_mm: float):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((60, 60, 60)), width_mm)
    texture = measure_texture((1 + 0.05 * noise / noise.std()).astype(np.float32), np.ones((60, 60, 60), bool))
    assert texture.sd == pytest.approx(0.05, rel=0.05)
    assert texture.width_mm == pytest.approx(width_mm, rel=0.12)


def test_a_texture_has_its_standard_deviation():
    assert Texture(0.03, 0.6).sample((40, 40, 40), np.random.default_rng(0)).std() == pytest.approx(0.03, rel=1e-3)


def test_no_region_has_no_texture():
    assert measure_texture(np.ones((5, 5, 5), np.float32), np.zeros((5, 5, 5), bool)).sd == 0


def head() -> tuple[np.ndarray, np.ndarray]:
    """White matter of signal 1 (left half) and 0.9 (right half), a slab of fluid, a lesion with a bright rim."""
    signal = np.ones((40, 40, 60), np.float32)
    signal[..., 30:] = 0.9
    signal[:, :6] = 0.1
    lesion = np.zeros(signal.shape, bool)
    lesion[16:22, 16:22, 8:14] = True
    signal[ndimage.binary_dilation(lesion)] = 1.2
    signal[lesion] = 1.6
    return signal, lesion


def test_a_lesion_gets_the_level_of_the_white_matter_beside_it():
    signal, lesion = head()
    brain = np.ones(signal.shape, bool)
    filled, _ = fill_lesions(signal, lesion, brain, brain, np.random.default_rng(0))
    np.testing.assert_allclose(filled[ndimage.binary_dilation(lesion)], 1.0, atol=0.02)
    far = ~ndimage.binary_dilation(lesion, iterations=4)
    np.testing.assert_array_equal(filled[far], signal[far])


def test_fluid_beside_a_lesion_stays():
    signal, lesion = head()
    lesion[:] = False
    lesion[16:22, 6:12, 8:14] = True
    signal[lesion] = 1.6
    brain = np.ones(signal.shape, bool)
    filled, _ = fill_lesions(signal, lesion, brain, brain, np.random.default_rng(0))
    assert filled[16:22, :6, 8:14].max() < 0.11
    assert filled[lesion].max() < 1.05


def test_a_filled_lesion_has_the_texture_of_white_matter():
    signal, lesion = head()
    lesion[10:30, 14:34, 6:26] = True
    signal[lesion] = 1.6
    signal += np.random.default_rng(1).normal(0, 0.03, signal.shape).astype(np.float32)
    brain = np.ones(signal.shape, bool)
    filled, texture = fill_lesions(signal, lesion, brain, brain, np.random.default_rng(0))
    assert texture.sd == pytest.approx(0.03, rel=0.1)
    assert filled[ndimage.binary_erosion(lesion, iterations=2)].std() == pytest.approx(0.03, rel=0.15)
