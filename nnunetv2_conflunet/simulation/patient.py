"""One simulated patient: a brain, its lesions and what looks like lesions."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.simulation.anatomy import INFRATENTORIAL_MM, Anatomy, simulate_anatomy
from nnunetv2_conflunet.simulation.distractors import add_distractors
from nnunetv2_conflunet.simulation.grid import Grid
from nnunetv2_conflunet.simulation.growth import Tissue
from nnunetv2_conflunet.simulation.lesions import LesionStatistics, draw_plan
from nnunetv2_conflunet.simulation.placement import Placement, place_lesions
from nnunetv2_conflunet.simulation.rendering import Canvas, add_lesions, scan
from nnunetv2_conflunet.simulation.templates import TISSUES, load_templates

PERIVENTRICULAR, WHITE_MATTER = 0, 1


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
    # One stream a part: the same brain whatever lesions are asked for.
    key = seed.spawn_key if isinstance(seed, np.random.SeedSequence) else ()
    entropy = seed.entropy if isinstance(seed, np.random.SeedSequence) else seed
    brain_rng, plan_rng, place_rng, look_rng, distractor_rng, scan_rng = (
        np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(*key, part))) for part in range(6)
    )
    anatomy = simulate_anatomy(load_templates(), grid, brain_rng)
    tissue = white_matter_tissue(anatomy)
    placement = Placement(np.zeros(grid.shape, np.int32))
    if statistics is not None:
        placement = place_lesions(draw_plan(statistics, plan_rng), tissue, place_rng)
    canvas = Canvas(grid.shape)
    add_lesions(canvas, placement.units, look_rng.uniform(0.50, 0.75), grid.voxel_volume_mm3, look_rng)
    add_distractors(canvas, anatomy, placement.instances, distractor_rng)
    image = scan(canvas.over(anatomy.signal), anatomy.brain, grid, scan_rng)
    return Patient(image, placement.instances, placement.missed)


def white_matter_tissue(anatomy: Anatomy) -> Tissue:
    """Where a patient's lesions may lie: around the ventricles and in white matter, reaching into gray matter."""
    gray = anatomy.tissues["cortex"] + anatomy.tissues["deep_gray"]
    distance = anatomy.ventricle_distance_mm
    allowed = (anatomy.brain > 0.95) & (anatomy.tissues["csf"] < 0.3) & (distance > 0)
    white = np.where(allowed, anatomy.tissues["white"], 0)
    return Tissue(
        spacing_mm=anatomy.grid.spacing_mm,
        allowed=allowed,
        reluctance=gray,
        densities=_densities(white, distance, anatomy.height_mm),
        choose_density=choose_density,
        ventricle_distance_mm=distance,
    )


def lesion_share_of(grid: Grid) -> float:
    """Share of a brain's lesions whose middle falls into the grid's box, by the template, between 0 and 1."""
    templates = load_templates()
    white = templates.tissues[TISSUES.index("white")]
    axes = [o + np.arange(n) for o, n in zip(templates.origin_mm, white.shape, strict=True)]
    inside = [
        (axis > o - d / 2) & (axis < o + d * (n - 0.5))
        for axis, o, d, n in zip(axes, grid.origin_mm, grid.spacing_mm, grid.shape, strict=True)
    ]
    # Three of four lesions are drawn from the wider of the two densities.
    _, density = _densities(white, templates.ventricle_distance_mm, axes[0][:, None, None])
    return float(density[np.ix_(*inside)].sum() / density.sum())


def _densities(white: np.ndarray, distance_mm: np.ndarray, height_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities of periventricular and of other lesions."""
    outside_mm = np.clip(distance_mm, 0, None)
    # Few lesions below the tentorium.
    above = 0.15 + 0.85 / (1 + np.exp(-(height_mm - INFRATENTORIAL_MM) / 4.0))
    return white * np.exp(-outside_mm / 4.0), white * np.exp(-outside_mm / 25.0) * above


def choose_density(volume_mm3: float, is_cluster: bool, rng: np.random.Generator) -> int:
    """The density of a lesion's middle: large lesions and clusters more often lie beside the ventricles.

    In the masks of Lesjak et al. 2017 5 % of the components below 30 mm3, 21 % of those of 100-500 mm3 and 96 % of
    those above 2 mL come within 3 mm of the ventricles.
    """
    share = np.interp(np.log(volume_mm3), np.log([14, 100, 500, 2000]), [0.08, 0.15, 0.35, 0.6])
    return PERIVENTRICULAR if rng.random() < share + 0.25 * is_cluster else WHITE_MATTER
