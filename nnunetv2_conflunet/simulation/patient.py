"""One simulated patient: a brain, its lesions and what looks like lesions."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.simulation.anatomy import Anatomy, Head, simulate_anatomy
from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.simulation.lesions import LesionStatistics, draw_plan
from nnunetv2_conflunet.simulation.placement import Tissue, place_lesions
from nnunetv2_conflunet.simulation.rendering import Canvas, Look, add_lesions, add_look_alikes, scan
from nnunetv2_conflunet.simulation.templates import load_templates

# Below this height in MNI space lie the brain stem and the cerebellum, where lesions are rarer.
INFRATENTORIAL_MM = -18.0


@dataclass(frozen=True)
class Patient:
    """A simulated image and its truth; arrays are (Z, Y, X).

    Attributes:
        image: int16 FLAIR, 0 outside the brain.
        instances: int32, 0 background, one id from 1 a lesion.
        missed: lesions for which no place was found.
    """

    image: np.ndarray
    instances: np.ndarray
    missed: int


def random_streams(seed: int | np.random.SeedSequence, count: int) -> list[np.random.Generator]:
    """Independent random numbers for the parts of a patient: the same brain whatever lesions are asked for.

    Example:
        >>> first, _ = random_streams(0, 2)
        >>> again, _, _ = random_streams(0, 3)
        >>> first.random() == again.random()
        True
    """
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    return [
        np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, part)))
        for part in range(count)
    ]


def simulate_patient(grid: Grid, statistics: LesionStatistics | None, seed: int | np.random.SeedSequence) -> Patient:
    """Simulate one patient.

    Args:
        grid: the grid of the image.
        statistics: what the lesions are drawn from; None for a patient without lesions.
        seed: the same seed gives the same patient.

    Returns:
        The patient.

    Raises:
        InputError: the anatomy is not installed.
    """
    brain_rng, plan_rng, place_rng, look_rng, distractor_rng, scan_rng = random_streams(seed, 6)
    anatomy, look = simulate_anatomy(load_templates(), grid, brain_rng), Look()
    plan = [] if statistics is None else draw_plan(statistics, plan_rng)
    placement = place_lesions(plan, white_matter_tissue(anatomy), place_rng)
    canvas = Canvas(grid.shape)
    add_lesions(canvas, placement.units, grid.voxel_volume_mm3, look, look_rng)
    add_look_alikes(canvas, anatomy, placement.instances, distractor_rng)
    image = scan(canvas.over(anatomy.signal), anatomy.brain, grid, look, scan_rng)
    return Patient(image, placement.instances, placement.missed)


def allowed_voxels(head: Head) -> np.ndarray:
    """(Z, Y, X) bool, voxels that a lesion may take: tissue inside the brain, outside the ventricles."""
    return (head.brain > 0.95) & (head.tissues["csf"] < 0.3) & (head.ventricle_distance_mm > 0)


def white_matter_tissue(anatomy: Anatomy) -> Tissue:
    """Where a patient's lesions may lie: around the ventricles and in white matter, reaching into gray matter."""
    allowed = allowed_voxels(anatomy)
    white = np.where(allowed, anatomy.tissues["white"], 0)
    return Tissue(
        spacing_mm=anatomy.grid.spacing_mm,
        allowed=allowed,
        densities=_densities(white, anatomy.ventricle_distance_mm, anatomy.height_mm),
        reluctance=anatomy.tissues["cortex"] + anatomy.tissues["deep_gray"],
        ventricle_distance_mm=anatomy.ventricle_distance_mm,
    )


def lesion_share_of(grid: Grid) -> float:
    """Share of a brain's lesions whose middle falls into the grid's box, by the template, between 0 and 1."""
    head = load_templates()
    axes = head.grid.axes_mm()
    inside = [
        (axis > o - mm / 2) & (axis < o + mm * (n - 0.5))
        for axis, o, mm, n in zip(axes, grid.origin_mm, grid.spacing_mm, grid.shape, strict=True)
    ]
    # Three of four lesions are drawn from the wider of the two densities.
    _, density = _densities(head.tissues["white"], head.ventricle_distance_mm, axes[0][:, None, None])
    return float(density[np.ix_(*inside)].sum() / density.sum())


def _densities(white: np.ndarray, distance_mm: np.ndarray, height_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities of periventricular and of other lesions."""
    outside_mm = np.clip(distance_mm, 0, None)
    # Few lesions below the tentorium.
    above = 0.15 + 0.85 / (1 + np.exp(-(height_mm - INFRATENTORIAL_MM) / 4.0))
    return white * np.exp(-outside_mm / 4.0), white * np.exp(-outside_mm / 25.0) * above
