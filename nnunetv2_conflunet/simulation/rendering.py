"""Lesions and look-alikes painted into a FLAIR signal, and the scanner that images it."""

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.grid import Grid, smooth_field
from nnunetv2_conflunet.simulation.growth import Unit

# Larger lesions are brighter in the two FLAIR volumes of Lesjak et al. 2017 that this was compared with: volumes in
# mm3 and the factors of their contrast.
CONTRAST_BY_VOLUME = (14.0, 60.0, 250.0), (1.0, 1.15, 1.35)
Range = tuple[float, float]


class Canvas:
    """What shines in an image beside normal tissue.

    Every unit has a signal of its own that is highest in its middle and fades outward, so that the dark line between
    two lesions that touch is where they part.

    Args:
        shape: (Z, Y, X) of the image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.coverage = np.zeros(shape, np.float32)
        self.weighted_signal = np.zeros(shape, np.float32)

    def add(self, unit: Unit, peak: float, fading: float) -> None:
        """Add one unit.

        Args:
            unit: where it lies.
            peak: signal in its middle; 1 is white matter.
            fading: share of its contrast to white matter that is lost at its outline.
        """
        signal = 1 + (peak - 1) * (1 - fading * unit.depth**2)
        self.coverage[unit.box] += unit.coverage
        self.weighted_signal[unit.box] += unit.coverage * signal

    def over(self, background: np.ndarray) -> np.ndarray:
        """The background where nothing was added, the units where they fill the voxel, a mixture at their borders."""
        share = np.clip(self.coverage, 0, 1)
        signal = self.weighted_signal / np.maximum(self.coverage, 1e-6)
        return background * (1 - share) + np.maximum(signal, 0) * share


def add_lesions(
    canvas: Canvas,
    units: list[Unit],
    mean_contrast: float,
    voxel_mm3: float,
    rng: np.random.Generator,
    *,
    contrast_by_volume: tuple[tuple[float, ...], tuple[float, ...]] = CONTRAST_BY_VOLUME,
    fading: Range = (0.45, 0.8),
) -> None:
    """Give every lesion its own brightness and add it.

    Args:
        canvas: what to paint on.
        units: the lesions.
        mean_contrast: contrast to white matter in the middle of a small lesion, the patient's mean.
        voxel_mm3: volume of a voxel.
        rng: source of the brightness of each lesion.
        contrast_by_volume: volumes in mm3 and the factors of the contrast, linear in between.
        fading: smallest and largest share of its contrast that a lesion loses at its outline.
    """
    for unit in units:
        size = float(np.interp(unit.member.sum() * voxel_mm3, *contrast_by_volume))
        contrast = mean_contrast * size * float(np.exp(rng.normal(0, 0.18)))
        canvas.add(unit, 1 + contrast, float(rng.uniform(*fading)))


def scan(
    signal: np.ndarray,
    brain: np.ndarray,
    grid: Grid,
    rng: np.random.Generator,
    *,
    blur_mm: Range = (0.40, 0.60),
    noise: Range = (0.03, 0.075),
) -> np.ndarray:
    """Image a noiseless signal: blur, bias field, Rician noise, arbitrary scale.

    Args:
        signal: (Z, Y, X) float32, 1 is white matter.
        brain: (Z, Y, X) share of the voxel that is brain; below one half the image is 0, as after skull stripping.
        grid: the grid of both.
        rng: source of the scanner's properties and noise.
        blur_mm: smallest and largest standard deviation of the Gaussian blur.
        noise: smallest and largest standard deviation of the noise in 1 mm3 of white matter.

    Returns:
        (Z, Y, X) int16 image.
    """
    width_mm = rng.uniform(*blur_mm)
    image = ndimage.gaussian_filter(signal, [width_mm / d for d in grid.spacing_mm], mode="nearest")
    image *= np.exp(0.05 * smooth_field(grid, 55.0, rng))
    sigma = rng.uniform(*noise)
    # Thicker slices collect more signal than 1 mm ones.
    sigma /= np.sqrt(max(1.0, grid.voxel_volume_mm3))
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.sqrt(real**2 + imaginary**2)
    scale = rng.uniform(300, 900)
    return np.where(brain > 0.5, np.maximum(np.round(scale * image), 1), 0).astype(np.int16)
