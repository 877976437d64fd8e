"""One patient's brain: the template deformed, with FLAIR contrast."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.grid import Grid, block_mean, smooth_field
from nnunetv2_conflunet.simulation.templates import TISSUES, Templates

# Below this height in MNI space lie the brain stem and the cerebellum, where lesions are rarer.
INFRATENTORIAL_MM = -18.0


class Head(Protocol):
    """What a patient's deformation needs to know of the brain that it deforms, in (z, y, x) order on a 1 mm grid.

    Attributes:
        origin_mm: world position of voxel (0, 0, 0).
        ventricle_center_mm: center of mass of the lateral ventricles.
        ventricle_push: (3, Z, Y, X) float32, unit vectors away from the ventricles, fading with the distance.
    """

    origin_mm: tuple[float, float, float]
    ventricle_center_mm: tuple[float, float, float]
    ventricle_push: np.ndarray


@dataclass(frozen=True)
class Anatomy:
    """A brain without lesions on the grid of an image; arrays are (Z, Y, X) float32.

    Attributes:
        grid: the grid.
        tissues: share of each tissue in the voxel, by the names of :data:`.templates.TISSUES`.
        brain: share of the voxel that is brain.
        ventricle_distance_mm: distance to the lateral ventricles, negative inside.
        height_mm: height above the commissures in MNI space, before the patient's deformation.
        signal: noiseless FLAIR signal, 1 is white matter.
    """

    grid: Grid
    tissues: dict[str, np.ndarray]
    brain: np.ndarray
    ventricle_distance_mm: np.ndarray
    height_mm: np.ndarray
    signal: np.ndarray


def simulate_anatomy(templates: Templates, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Deform the template and give it the contrast of one patient's FLAIR.

    Args:
        templates: the maps of :func:`.templates.load_templates`.
        grid: the grid of the image. Voxels longer than 1.5 mm average the tissue along their length.
        rng: source of the patient.

    Returns:
        The patient's anatomy.
    """
    factors = tuple(max(1, round(d)) for d in grid.spacing_mm)
    fine = grid.refined(factors)
    coordinates = deformed_coordinates(templates, fine, rng)
    indices = [c - o for c, o in zip(coordinates, templates.origin_mm, strict=True)]

    def sample(values: np.ndarray, mode: str = "constant") -> np.ndarray:
        sampled = ndimage.map_coordinates(values, indices, order=1, mode=mode, output=np.float32)
        return block_mean(sampled, factors)

    tissues = {name: sample(values) for name, values in zip(TISSUES, templates.tissues, strict=True)}
    distance = sample(templates.ventricle_distance_mm, mode="nearest")
    signal = _flair_signal(tissues, distance, grid, rng)
    brain = sum(tissues.values())
    return Anatomy(grid, tissues, brain, distance, block_mean(coordinates[0], factors), signal)


def deformed_coordinates(head: Head, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Where each voxel of a deformed patient comes from.

    Args:
        head: what is deformed.
        grid: the grid of the patient's image.
        rng: source of the deformation.

    Returns:
        (3, Z, Y, X) float32 positions in mm in the space of `head`.
    """
    angles = np.deg2rad(rng.normal(0, 2.0, 3))
    scales = np.exp(rng.normal(0, 0.035, 3))
    shift_mm = rng.normal(0, 1.5, 3)
    enlargement_mm = rng.uniform(-0.5, 3.5)
    matrix = _rotation(angles) / scales[:, None]
    center = np.asarray(head.ventricle_center_mm)

    axes = [a - c for a, c in zip(grid.axes_mm(), center, strict=True)]
    coordinates = np.empty((3, *grid.shape), np.float32)
    for axis, (row, mm) in enumerate(zip(matrix, shift_mm, strict=True)):
        coordinates[axis] = (
            row[0] * axes[0][:, None, None]
            + row[1] * axes[1][None, :, None]
            + row[2] * axes[2][None, None, :]
            + (center[axis] + mm)
        )
        # Different lobes and ventricles, then different gyri.
        coordinates[axis] += 2.0 * smooth_field(grid, 28.0, rng) + 0.8 * smooth_field(grid, 9.0, rng)
    indices = [c - o for c, o in zip(coordinates, head.origin_mm, strict=True)]
    for axis in range(3):
        # Looking up nearer to the ventricles makes them larger, as atrophy does.
        coordinates[axis] -= enlargement_mm * ndimage.map_coordinates(
            head.ventricle_push[axis], indices, order=1, mode="nearest", output=np.float32
        )
    return coordinates


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) from three angles in rad."""
    a, b, c = angles
    first = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    second = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    third = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return first @ second @ third


def _flair_signal(
    tissues: dict[str, np.ndarray], distance_mm: np.ndarray, grid: Grid, rng: np.random.Generator
) -> np.ndarray:
    """FLAIR signal of the tissues, white matter 1: dark cerebrospinal fluid, gray matter a little brighter."""
    levels = {
        "cortex": rng.normal(1.16, 0.03),
        "deep_gray": rng.normal(1.03, 0.03),
        "white": 1.0,
        "csf": rng.uniform(0.10, 0.28),
    }
    signal = sum(level * tissues[name] for name, level in levels.items())
    # Some gyri are brighter than others, up to the brightness of faint lesions.
    signal += 0.07 * smooth_field(grid, 7.0, rng) * tissues["cortex"]
    # White matter beside the ventricles is brighter in every patient, unevenly so.
    rim = rng.uniform(0.03, 0.12) * np.exp(-np.clip(distance_mm, 0, None) / 3.0)
    rim *= np.clip(1 + 0.8 * smooth_field(grid, 12.0, rng), 0, None)
    # Tracts and the mixture of cortical layers: a texture of a few percent.
    texture = 0.02 * smooth_field(grid, 5.0, rng) + 0.015 * smooth_field(grid, 2.5, rng)
    return (signal * (1 + texture) + rim * tissues["white"]).astype(np.float32)
