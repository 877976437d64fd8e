"""A brain on a voxel grid, and one patient's brain: deformed, with FLAIR contrast."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.image_grid import Grid, Triple, block_mean, enlarged, smooth_field, triple

TISSUES = "cortex", "deep_gray", "white", "csf"


@dataclass(frozen=True)
class Head:
    """A brain and its lateral ventricles; arrays are (Z, Y, X) float32.

    Attributes:
        grid: their grid.
        tissues: fraction of each of :data:`TISSUES` per voxel; they sum to 1 in the brain and to 0 outside.
        ventricle_distance_mm: distance to the surface of the lateral ventricles, negative inside.
    """

    grid: Grid
    tissues: Mapping[str, np.ndarray]
    ventricle_distance_mm: np.ndarray

    @cached_property
    def brain(self) -> np.ndarray:
        """Fraction of each voxel that is brain."""
        first, *others = self.tissues.values()
        return sum(others, start=first)

    @cached_property
    def ventricle_center_mm(self) -> Triple:
        """Center of mass of the lateral ventricles, (z, y, x), on a 1 mm grid."""
        center = ndimage.center_of_mass(self.ventricle_distance_mm < 0)
        return triple(o + c for o, c in zip(self.grid.origin_mm, center, strict=True))

    @cached_property
    def ventricle_push(self) -> np.ndarray:
        """(3, Z, Y, X) float32, unit vectors away from the ventricles, fading with distance, on a 1 mm grid."""
        smooth = ndimage.gaussian_filter(self.ventricle_distance_mm, 2.0)
        return (np.stack(np.gradient(smooth)) * np.exp(-np.abs(smooth) / 12.0)).astype(np.float32)

    def sample(
        self, values: np.ndarray, positions_mm: np.ndarray, *, order: int = 1, mode: str = "constant"
    ) -> np.ndarray:
        """Sample a map on this head's grid at given positions.

        Args:
            values: (Z, Y, X), on a 1 mm grid.
            positions_mm: (3, ...) positions in mm.
            order: of the interpolating spline.
            mode: values outside the grid: ``constant`` for 0, or ``nearest``.

        Returns:
            (...) float32.
        """
        indices = [position - origin for position, origin in zip(positions_mm, self.grid.origin_mm, strict=True)]
        return ndimage.map_coordinates(values, indices, order=order, mode=mode, output=np.float32)


@dataclass(frozen=True)
class Anatomy(Head):
    """A brain without lesions on the grid of an image; arrays are (Z, Y, X) float32.

    Attributes:
        height_mm: height above the commissures in MNI space, before the patient's deformation.
        signal: noiseless FLAIR signal, 1 is white matter.
    """

    height_mm: np.ndarray
    signal: np.ndarray


def simulate_anatomy(head: Head, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Deform a head, such as the template, and give it one patient's FLAIR contrast.

    Voxels longer than 1.5 mm average the tissue along their length.
    """
    z, y, x = (max(1, round(mm)) for mm in grid.spacing_mm)
    factors = z, y, x
    positions_mm = deformed_positions_mm(head, grid.refined(factors), rng)
    tissues = {name: block_mean(head.sample(share, positions_mm), factors) for name, share in head.tissues.items()}
    distance = block_mean(head.sample(head.ventricle_distance_mm, positions_mm, mode="nearest"), factors)
    signal = _flair_signal(tissues, distance, grid, rng)
    return Anatomy(grid, tissues, distance, block_mean(positions_mm[0], factors), signal)


def deformed_positions_mm(head: Head, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """The position in `head` from which each voxel of a patient is sampled: (3, Z, Y, X) float32 in mm."""
    angles = np.deg2rad(rng.normal(0, 2.0, 3))
    scales = np.exp(rng.normal(0, 0.035, 3))
    shift_mm = rng.normal(0, 1.5, 3)
    enlargement_mm = rng.uniform(-0.5, 3.5)
    matrix = _rotation(angles) / scales[:, None]
    center = np.asarray(head.ventricle_center_mm)

    z, y, x = (axis - c for axis, c in zip(grid.axes_mm(), center, strict=True))
    positions = np.empty((3, *grid.shape), np.float32)
    for axis, (row, mm) in enumerate(zip(matrix, shift_mm, strict=True)):
        positions[axis] = row[0] * z[:, None, None] + row[1] * y[:, None] + row[2] * x + (center[axis] + mm)
        # Variation of lobes and ventricles, then of gyri.
        positions[axis] += 2.0 * smooth_field(grid, 28.0, rng) + 0.8 * smooth_field(grid, 9.0, rng)
    pushes = [head.sample(push, positions, mode="nearest") for push in head.ventricle_push]
    for axis, push in enumerate(pushes):
        # Sampling closer to the ventricles enlarges them, as atrophy does.
        positions[axis] -= enlargement_mm * push
    return positions


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) from three angles in rad."""
    a, b, c = angles
    first = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    second = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    third = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return first @ second @ third


def _flair_signal(
    tissues: Mapping[str, np.ndarray], distance_mm: np.ndarray, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """FLAIR signal of the tissues, 1 in white matter: cerebrospinal fluid dark, gray matter slightly brighter."""
    gray = rng.normal(1.16, 0.03) * tissues["cortex"] + rng.normal(1.03, 0.03) * tissues["deep_gray"]
    signal = gray + tissues["white"] + rng.uniform(0.10, 0.28) * tissues["csf"]
    # Some gyri are brighter than others, up to the brightness of faint lesions.
    signal += 0.07 * smooth_field(grid, 7.0, rng) * tissues["cortex"]
    # White matter next to the ventricles is brighter in every patient, though unevenly.
    rim = rng.uniform(0.03, 0.12) * np.exp(-np.clip(distance_mm, 0, None) / 3.0)
    rim *= np.clip(1 + 0.8 * smooth_field(grid, 12.0, rng), 0, None)
    # Tracts and cortical layers add a texture of a few percent.
    texture = 0.02 * smooth_field(grid, 5.0, rng) + 0.015 * smooth_field(grid, 2.5, rng)
    return (signal * (1 + texture) + rim * tissues["white"]).astype(np.float32)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the surface of a mask, in voxels.

    Args:
        mask: (Z, Y, X) bool, not empty.

    Returns:
        (Z, Y, X) float32, negative inside.

    Example:
        >>> signed_distance(np.array([[[False, False, True, True]]])).tolist()
        [[[2.0, 1.0, -1.0, -2.0]]]
    """
    distance = ndimage.distance_transform_edt(~mask).astype(np.float32)
    box = enlarged(ndimage.find_objects(mask.view(np.uint8))[0], 1)
    distance[box] -= ndimage.distance_transform_edt(mask[box]).astype(np.float32)
    return distance
