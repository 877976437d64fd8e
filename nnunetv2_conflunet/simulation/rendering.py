"""Rendering of lesions and look-alikes into a FLAIR signal, and the scanner."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import Anatomy
from nnunetv2_conflunet.simulation.growth import Unit, grow
from nnunetv2_conflunet.simulation.image_grid import Grid, smooth_field
from nnunetv2_conflunet.simulation.lesions import IrregularEllipsoid, random_shape

# Brain volume, to scale the number of look-alikes to a crop.
WHOLE_BRAIN_ML = 1400.0
Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """Appearance of lesions and images: ranges from which the properties of each patient or lesion are drawn.

    Larger lesions are brighter, as in the two FLAIR volumes of Lesjak et al. 2017 to which the defaults were compared.

    Attributes:
        contrast: a patient's mean contrast to white matter in the middle of a small lesion.
        contrast_by_volume: volumes in mm3 and factors of the contrast, linear in between.
        fading: fraction of its contrast to white matter that a lesion loses toward its outline.
        blur_mm: standard deviation of the scanner's Gaussian blur.
        noise: standard deviation of its noise in 1 mm3 of white matter.
    """

    contrast: Range = (0.50, 0.75)
    contrast_by_volume: tuple[tuple[float, ...], tuple[float, ...]] = ((14.0, 60.0, 250.0), (1.0, 1.15, 1.35))
    fading: Range = (0.45, 0.8)
    blur_mm: Range = (0.40, 0.60)
    noise: Range = (0.03, 0.075)


class Canvas:
    """Hyperintensities to be added to normal tissue.

    Every unit has its own signal, highest in its middle and fading outward, so touching lesions are separated by a
    darker line.

    Args:
        shape: (Z, Y, X) of the image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.coverage = np.zeros(shape, np.float32)
        self.weighted_signal = np.zeros(shape, np.float32)

    def add(self, unit: Unit, peak: float, fading: float) -> None:
        """Add a unit with a peak signal in its middle; a fraction of its contrast to white matter (1) fades outward."""
        signal = 1 + (peak - 1) * (1 - fading * unit.depth**2)
        self.coverage[unit.box] += unit.coverage
        self.weighted_signal[unit.box] += unit.coverage * signal

    def over(self, background: np.ndarray) -> np.ndarray:
        """The background where nothing was added, the units where they fill the voxel, and a mixture at borders."""
        share = np.clip(self.coverage, 0, 1)
        signal = self.weighted_signal / np.maximum(self.coverage, 1e-6)
        return background * (1 - share) + np.maximum(signal, 0) * share


def add_lesions(canvas: Canvas, units: list[Unit], voxel_mm3: float, look: Look, rng: np.random.Generator) -> None:
    """Draw a patient's contrast and the brightness of each lesion, and add the lesions."""
    mean_contrast = rng.uniform(*look.contrast)
    for unit in units:
        size = float(np.interp(unit.member.sum() * voxel_mm3, *look.contrast_by_volume))
        contrast = mean_contrast * size * float(np.exp(rng.normal(0, 0.18)))
        canvas.add(unit, 1 + contrast, float(rng.uniform(*look.fading)))


@dataclass(frozen=True)
class LookAlike:
    """One kind of hyperintensity in FLAIR that is not a lesion.

    Attributes:
        tissue: its tissue, one of :data:`.anatomy.TISSUES`.
        count: mean number in a whole brain.
        volume_mm3: smallest and largest volume.
        peak: lowest and highest signal in its middle; 1 is white matter.
        is_tube: whether it is long and thin.
    """

    tissue: str
    count: float
    volume_mm3: Range
    peak: Range
    is_tube: bool = False


LOOK_ALIKES = (
    # Punctate hyperintensities: as bright as lesions, but below the size at which lesions count.
    LookAlike("white", 14, (2.0, 7.0), (1.25, 1.6)),
    LookAlike("cortex", 10, (2.0, 8.0), (1.3, 1.6)),
    # Vessels and perivascular spaces with bright walls.
    LookAlike("white", 6, (5.0, 12.0), (1.15, 1.4), is_tube=True),
    LookAlike("cortex", 10, (6.0, 20.0), (1.3, 1.6), is_tube=True),
    # Patches of cortex, brighter in FLAIR near the insula and the cingulum.
    LookAlike("cortex", 14, (30.0, 250.0), (1.2, 1.4)),
    LookAlike("deep_gray", 3, (30.0, 200.0), (1.1, 1.25)),
)
CHOROID_PLEXUS = LookAlike("csf", 5, (40.0, 200.0), (1.0, 1.5))


def add_look_alikes(canvas: Canvas, anatomy: Anatomy, instances: np.ndarray, rng: np.random.Generator) -> None:
    """Add look-alikes of lesions in tissue that no lesion of `instances`, (Z, Y, X), occupies or touches."""
    free = (anatomy.brain > 0.95) & ~ndimage.binary_dilation(instances > 0, iterations=2)
    share = float(anatomy.brain.sum()) * anatomy.grid.voxel_volume_mm3 / 1000 / WHOLE_BRAIN_ML
    for kind in LOOK_ALIKES:
        _add_kind(canvas, anatomy, kind, free, share, rng)
    # The plexus is in the ventricles, which are completely inside any crop around them.
    _add_kind(canvas, anatomy, CHOROID_PLEXUS, free & (anatomy.ventricle_distance_mm < 0), 1.0, rng)


def _add_kind(
    canvas: Canvas, anatomy: Anatomy, kind: LookAlike, free: np.ndarray, share: float, rng: np.random.Generator
) -> None:
    """Draw the number and positions of one kind in its tissue, and add those that fit."""
    allowed = free & (anatomy.tissues[kind.tissue] > 0.5)
    candidates = np.flatnonzero(allowed)
    count = rng.poisson(kind.count * share)
    if len(candidates) == 0:
        return
    for _ in range(count):
        center = np.array(np.unravel_index(candidates[rng.integers(len(candidates))], allowed.shape))
        volume_mm3 = float(np.exp(rng.uniform(*np.log(kind.volume_mm3))))
        shape = _tube(rng) if kind.is_tube else random_shape(rng)
        unit = grow(
            shape, volume_mm3, center, anatomy.grid.spacing_mm, allowed, allowed,
            min_volume_mm3=0.5 * volume_mm3, min_extent_mm=0.0,
        )  # fmt: skip
        if unit is not None:
            canvas.add(unit, float(rng.uniform(*kind.peak)), float(rng.uniform(0.3, 0.7)))


def _tube(rng: np.random.Generator) -> IrregularEllipsoid:
    """A straight thin ellipsoid."""
    shape = random_shape(rng)
    axes = np.array([rng.uniform(3.0, 6.0), 1.0, 1.0])
    return replace(shape, axes=axes / np.prod(axes) ** (1 / 3), amplitudes=0.5 * shape.amplitudes)


def scan(signal: np.ndarray, brain: np.ndarray, grid: Grid, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Image a noiseless signal, with blur, bias field, Rician noise and an arbitrary scale.

    Args:
        signal: (Z, Y, X) float32, 1 is white matter.
        brain: (Z, Y, X) fraction of the voxel that is brain; below one half the image is 0, as after skull stripping.
        grid: the grid of both.
        look: its blur and noise.
        rng: source of the scanner's properties and noise.

    Returns:
        (Z, Y, X) int16 image.

    Example:
        >>> white = np.ones((20, 20, 20), np.float32)
        >>> grid = Grid(white.shape, (1, 1, 1), (0, 0, 0))
        >>> image = scan(white, white, grid, Look(), np.random.default_rng(0))
        >>> image.dtype, bool(image.std() < 0.2 * image.mean())
        (dtype('int16'), True)
    """
    width_mm = rng.uniform(*look.blur_mm)
    image = ndimage.gaussian_filter(signal, [width_mm / mm for mm in grid.spacing_mm], mode="nearest")
    image *= np.exp(0.05 * smooth_field(grid, 55.0, rng))
    sigma = rng.uniform(*look.noise)
    # Thicker slices collect more signal than 1 mm ones.
    sigma /= np.sqrt(max(1.0, grid.voxel_volume_mm3))
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.sqrt(real**2 + imaginary**2)
    scale = rng.uniform(300, 900)
    return np.where(brain > 0.5, np.maximum(np.round(scale * image), 1), 0).astype(np.int16)
