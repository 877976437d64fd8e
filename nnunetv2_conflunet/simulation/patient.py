"""One simulated patient: a brain, its lesions and look-alikes of lesions."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.simulation.anatomy import Anatomy, Head, simulate_anatomy
from nnunetv2_conflunet.simulation.image_grid import Grid
from nnunetv2_conflunet.simulation.lesions import LesionStatistics, draw_plan
from nnunetv2_conflunet.simulation.placement import Tissue, place_lesions
from nnunetv2_conflunet.simulation.rendering import Canvas, Look, add_lesions, add_look_alikes, scan
from nnunetv2_conflunet.simulation.templates import load_templates

# Brain stem and cerebellum, where lesions are rarer, are below this height in MNI space.
INFRATENTORIAL_MM = -18.0


@dataclass(frozen=True)
class Patient:
    """A simulated image and its ground truth; arrays are (Z, Y, X).

    Attributes:
        image: int16 FLAIR, 0 outside the brain.
        instances: int32, 0 background, ids from 1, one per lesion.
        missed: number of lesions that could not be placed.
    """

    image: np.ndarray
    instances: np.ndarray
    missed: int


def random_streams(seed: int | np.random.SeedSequence, count: int) -> list[np.random.Generator]:
    """Independent random generators for the parts of a patient, so that the brain does not depend on the lesions.

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
        statistics: distributions of the lesions; None for a patient without lesions.
        seed: the same seed gives the same patient.

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
    """(Z, Y, X) bool, voxels that a lesion may occupy: tissue inside the brain, outside the ventricles."""
    return (head.brain > 0.95) & (head.tissues["csf"] < 0.3) & (head.ventricle_distance_mm > 0)


def white_matter_tissue(anatomy: Anatomy) -> Tissue:
    """Where a patient's lesions may be: around the ventricles and in white matter, extending into gray matter."""
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
    """Expected fraction of a brain's lesions whose middle is in the grid's box, according to the template."""
    head = load_templates()
    axes = head.grid.axes_mm()
    inside = [
        (axis > o - mm / 2) & (axis < o + mm * (n - 0.5))
        for axis, o, mm, n in zip(axes, grid.origin_mm, grid.spacing_mm, grid.shape, strict=True)
    ]
    # Three out of four lesions are drawn from the wider of the two densities.
    _, density = _densities(head.tissues["white"], head.ventricle_distance_mm, axes[0][:, None, None])
    return float(density[np.ix_(*inside)].sum() / density.sum())


def _densities(white: np.ndarray, distance_mm: np.ndarray, height_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities of periventricular and of other lesions."""
    outside_mm = np.clip(distance_mm, 0, None)
    # Few lesions below the tentorium.
    above = 0.15 + 0.85 / (1 + np.exp(-(height_mm - INFRATENTORIAL_MM) / 4.0))
    return white * np.exp(-outside_mm / 4.0), white * np.exp(-outside_mm / 25.0) * above
