"""Replacement of the lesions in a real FLAIR by surrounding white matter."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

CUBE = np.ones((3, 3, 3), bool)
# Signal of healthy white matter relative to its most frequent value.
DONOR_SIGNAL = 0.86, 1.07
# Distances in voxels of donors from lesions, and from fluid and skull.
LESION_MARGIN, FLUID_MARGIN = 3, 2
# Widths of the averages for the local level; a wider one counts only where narrower ones find no donors.
WIDTHS_MM, FALLING_WEIGHT = (2.5, 5.0, 10.0, 20.0), 1e-3
# Voxels around a mask that still hold some of the lesion.
RIM = 3
FLUID_SIGNAL = 0.6


@dataclass(frozen=True)
class Texture:
    """The fine structure of white matter: noise of a standard deviation and a correlation.

    Attributes:
        sd: relative to the signal of white matter.
        width_mm: Gaussian that turns white noise into noise of this correlation.
    """

    sd: float
    width_mm: float

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """(Z, Y, X) float32 with this standard deviation, on a 1 mm grid."""
        noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), self.width_mm)
        return noise * np.float32(self.sd / max(float(noise.std()), 1e-6))


def fill_lesions(
    signal: np.ndarray, lesions: np.ndarray, brain: np.ndarray, white: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, Texture]:
    """Replace lesions, and the rim that they brighten, with plausible white matter.

    Inside the mask the signal becomes the local level of healthy white matter plus texture. In the rim only brighter
    voxels are replaced, so that fluid and borders stay.

    Args:
        signal: (Z, Y, X) float32, 1 is white matter, 1 mm grid.
        lesions: (Z, Y, X) bool.
        brain: (Z, Y, X) bool.
        white: (Z, Y, X) bool, possible white matter, from which donors are taken.
        rng: source of the texture.

    Returns:
        The filled signal, (Z, Y, X) float32, and the measured texture.
    """
    smooth = ndimage.gaussian_filter(signal, 0.8)
    fluid = ndimage.binary_dilation((smooth < FLUID_SIGNAL) | ~brain, CUBE, FLUID_MARGIN)
    donors = (smooth > DONOR_SIGNAL[0]) & (smooth < DONOR_SIGNAL[1]) & white & ~fluid
    donors &= ~ndimage.binary_dilation(lesions, CUBE, LESION_MARGIN)
    texture = measure_texture(signal, donors)
    level = _local_level(signal, donors)
    filled = np.minimum(signal, level + texture.sample(signal.shape, rng))
    replaced = np.where(smooth > FLUID_SIGNAL, level + texture.sample(signal.shape, rng), filled)
    rim = ndimage.binary_dilation(lesions, iterations=RIM)
    return np.where(lesions, replaced, np.where(rim, filled, signal)).astype(np.float32), texture


def measure_texture(signal: np.ndarray, region: np.ndarray) -> Texture:
    """Standard deviation and correlation of the signal about its local mean (3 mm) in a region, 1 mm grid.

    Args:
        signal: (Z, Y, X) float32.
        region: (Z, Y, X) bool; voxels whose neighbors belong to it as well are measured.

    Returns:
        The texture; with a standard deviation of 0 if the region is empty.
    """
    weight = ndimage.gaussian_filter(region.astype(np.float32), 3.0)
    mean = ndimage.gaussian_filter(np.where(region, signal, 0), 3.0) / np.maximum(weight, 1e-6)
    rest = np.where(region, signal - mean, 0)
    variance = float((rest[region] ** 2).mean()) if region.any() else 0.0
    # A robust estimate, since vessels and borders in the region are not texture.
    sd = 1.4826 * float(np.median(np.abs(rest[region]))) if region.any() else 0.0
    correlations = []
    for axis in range(3):
        first, second = (np.take(region, range(a, a + region.shape[axis] - 1), axis) for a in (0, 1))
        both = first & second
        product = np.take(rest, range(region.shape[axis] - 1), axis) * np.take(rest, range(1, region.shape[axis]), axis)
        correlations.append(float(product[both].mean()) / variance if both.any() and variance > 0 else 0.0)
    return Texture(sd, _gaussian_width(float(np.mean(correlations))))


def _gaussian_width(correlation: float) -> float:
    """Width in voxels of the sampled Gaussian that gives white noise this correlation between neighbors."""
    widths = np.linspace(0.2, 3.0, 281)
    kernels = np.exp(-0.5 * (np.arange(-12, 13) / widths[:, None]) ** 2)
    correlations = (kernels[:, 1:] * kernels[:, :-1]).sum(axis=1) / (kernels**2).sum(axis=1)
    return float(np.interp(correlation, correlations, widths))


def _local_level(signal: np.ndarray, donors: np.ndarray) -> np.ndarray:
    """Average of the donors around each voxel, mostly of the nearest ones."""
    total, weight = np.full(signal.shape, 1e-12, np.float64), np.full(signal.shape, 1e-12, np.float64)
    for step, width in enumerate(WIDTHS_MM):
        scale = FALLING_WEIGHT**step
        total += scale * ndimage.gaussian_filter(np.where(donors, signal, 0), width)
        weight += scale * ndimage.gaussian_filter(donors.astype(np.float32), width)
    return (total / weight).astype(np.float32)
