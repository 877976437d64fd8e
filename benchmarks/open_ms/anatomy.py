"""The brain of a real FLAIR without its lesions, and new patients derived from it by deformation."""

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import TISSUES, Anatomy, Head, deformed_positions_mm, signed_distance
from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.utilities.errors import InputError
from open_ms.filling import Texture, fill_lesions

# Below this signal more than half of a voxel is fluid; white matter is 1.
FLUID_LEVEL, WHITE_LEVEL = 0.2, 0.9
# Signal of the tissues and its scatter in smoothed FLAIR.
CORTEX_SIGNAL, SIGNAL_SCATTER = 1.14, 0.06
# The template fits the brain only to within a few millimeters.
PRIOR_BLUR_MM = 2.5
# Only the head above this height is compared with the template; skull stripping differs below.
LOWEST_FIT_MM = -20.0
# Ventricles vary in size; other fluid this close to the template's ventricles is rare.
VENTRICLE_REACH_MM, SMALLEST_VENTRICLE_MM3 = 10.0, 100
# Half the width of the bright choroid plexus inside them.
PLEXUS_VOXELS = 3


@dataclass(frozen=True)
class RealBrain(Head):
    """A brain with its lesions filled, on the 1 mm grid of its image; arrays are (Z, Y, X) float32.

    Attributes:
        signal: 1 is white matter, 0 outside the brain.
        occurrence: (2, Z, Y, X) float32, frequency of lesions at each position: all lesions, those up to 2 mL.
        texture: fine structure of its white matter.
    """

    signal: np.ndarray
    occurrence: np.ndarray
    texture: Texture


def real_brain(flair: np.ndarray, lesions: np.ndarray, grid: Grid, occurrence: np.ndarray, template: Head) -> RealBrain:
    """Fill the lesions of a FLAIR and find its tissues and ventricles.

    Args:
        flair: (Z, Y, X) float32, skull-stripped: exactly 0 outside the brain.
        lesions: (Z, Y, X) bool.
        grid: the grid of both, 1 mm.
        occurrence: (2, Z, Y, X) float32, see :class:`RealBrain`.
        template: prior knowledge of where gray and white matter are.

    Returns:
        The brain; deterministic.

    Raises:
        InputError: no white matter or no ventricles are found.
    """
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(flair != 0))
    points = template_points(template, brain, grid)
    priors = fitted_priors(template, points)
    template_distance = ndimage.map_coordinates(template.ventricle_distance_mm, points, order=1, mode="nearest")
    white = (priors["white"] > 0.7) & brain
    if not (white & ~lesions).any():
        raise InputError("No white matter was found: is this a skull-stripped FLAIR in MNI space?")
    signal = np.where(brain, flair / np.median(flair[white & ~lesions]), 0).astype(np.float32)
    signal, texture = fill_lesions(signal, lesions, brain, white, np.random.default_rng(0))
    tissues = classify(signal, brain, lesions, priors)
    ventricles = find_ventricles(tissues["csf"] > 0.5, template_distance)
    return RealBrain(grid, tissues, signed_distance(ventricles), signal, occurrence, texture)


def template_points(template: Head, brain: np.ndarray, grid: Grid) -> list[np.ndarray]:
    """Positions in the template for the voxels of a brain, by a shift and scaling per axis that match their extents.

    Args:
        template: the template.
        brain: (Z, Y, X) bool.
        grid: its grid.

    Returns:
        Three maps (Z, Y, X) of positions in voxels of the template.
    """
    ours = _moments(brain, grid.axes_mm())
    theirs = _moments(template.brain > 0.5, template.grid.axes_mm())
    indices = [
        (axis - mean) / sd * their_sd + their_mean - origin
        for axis, (mean, sd), (their_mean, their_sd), origin in zip(
            grid.axes_mm(), ours, theirs, template.grid.origin_mm, strict=True
        )
    ]
    return np.meshgrid(*[index.astype(np.float32) for index in indices], indexing="ij")


def _moments(brain: np.ndarray, axes_mm: tuple[np.ndarray, ...]) -> list[tuple[float, float]]:
    """Mean and standard deviation of a brain's voxels along each axis, in mm."""
    is_high = axes_mm[0] > LOWEST_FIT_MM
    moments = []
    for axis, position in enumerate((axes_mm[0][is_high], *axes_mm[1:])):
        counts = brain[is_high].sum(axis=tuple({0, 1, 2} - {axis})).astype(float)
        mean = float((counts * position).sum() / counts.sum())
        moments.append((mean, float(np.sqrt((counts * (position - mean) ** 2).sum() / counts.sum()))))
    return moments


def fitted_priors(template: Head, points: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The template's tissues, blurred, at points from :func:`template_points`, each (Z, Y, X) float32."""
    blurred = {name: ndimage.gaussian_filter(share, PRIOR_BLUR_MM) for name, share in template.tissues.items()}
    return {name: ndimage.map_coordinates(share, points, order=1, output=np.float32) for name, share in blurred.items()}


def find_ventricles(fluid: np.ndarray, template_distance_mm: np.ndarray) -> np.ndarray:
    """The fluid near the template's lateral ventricles, with the choroid plexus inside.

    Args:
        fluid: (Z, Y, X) bool on a 1 mm grid.
        template_distance_mm: (Z, Y, X) distance to the fitted template's ventricles.

    Returns:
        (Z, Y, X) bool.

    Raises:
        InputError: there are none.
    """
    near = fluid & (template_distance_mm < VENTRICLE_REACH_MM)
    ventricles = cc3d.dust(near.astype(np.uint8), threshold=SMALLEST_VENTRICLE_MM3, connectivity=6) > 0
    if not ventricles.any():
        raise InputError("No ventricles were found: is this a skull-stripped FLAIR in MNI space?")
    return ndimage.binary_closing(ventricles, iterations=PLEXUS_VOXELS)


def classify(
    signal: np.ndarray, brain: np.ndarray, lesions: np.ndarray, priors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Shares of the tissues from the signal and where the template has them.

    Args:
        signal: (Z, Y, X) float32 without lesions, 1 is white matter.
        brain: (Z, Y, X) bool.
        lesions: (Z, Y, X) bool, where they were: white matter.
        priors: from :func:`fitted_priors`.

    Returns:
        Each (Z, Y, X) float32; they sum to 1 in the brain.
    """
    smooth = ndimage.gaussian_filter(signal, 0.8)
    fluid = np.clip((WHITE_LEVEL - smooth) / (WHITE_LEVEL - FLUID_LEVEL), 0, 1)
    cortex, deep, white = (np.maximum(priors[name], 0.02) for name in ("cortex", "deep_gray", "white"))
    cortex = cortex * np.exp(-0.5 * (np.minimum(smooth - CORTEX_SIGNAL, 0) / SIGNAL_SCATTER) ** 2)
    white = white * np.exp(-0.5 * (np.maximum(smooth - 1.0, 0) / SIGNAL_SCATTER) ** 2)
    # Fluid darkens gray and white matter alike, so the signal does not tell which of the two the rest is.
    unclear = fluid > 0.3
    cortex, white = np.where(unclear, priors["cortex"], cortex), np.where(unclear, priors["white"], white)
    white = np.where(lesions, 10.0, white)
    solid = np.stack([cortex, deep, white]) / np.maximum(cortex + deep + white, 1e-6)
    shares = (np.stack([*(solid * (1 - fluid)), fluid]) * brain).astype(np.float32)
    return dict(zip(TISSUES, shares, strict=True))


def deform_brain(brain: RealBrain, grid: Grid, rng: np.random.Generator) -> tuple[Anatomy, np.ndarray]:
    """A new patient: a real brain, possibly mirrored, and deformed as the simulation deforms its template.

    Args:
        brain: the brain.
        grid: the grid of the new image, 1 mm.
        rng: source of the patient.

    Returns:
        The anatomy, whose signal holds the noise of the real image, and the occurrence of lesions on its grid,
        (2, Z, Y, X) float32.
    """
    is_mirrored = bool(rng.random() < 0.5)
    positions_mm = deformed_positions_mm(brain, grid, rng)
    if is_mirrored:
        positions_mm[2] = 2 * np.float32(brain.ventricle_center_mm[2]) - positions_mm[2]
    tissues = {name: brain.sample(share, positions_mm) for name, share in brain.tissues.items()}
    distance = brain.sample(brain.ventricle_distance_mm, positions_mm, mode="nearest")
    # Cubic interpolation keeps the noise, which a linear one would take off here and there.
    signal = np.maximum(brain.sample(brain.signal, positions_mm, order=3), 0)
    occurrence = np.stack([brain.sample(share, positions_mm) for share in brain.occurrence])
    return Anatomy(grid, tissues, distance, positions_mm[0], signal), occurrence
