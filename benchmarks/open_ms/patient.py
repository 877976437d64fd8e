"""One semi-synthetic patient: a real brain, deformed, with lesions of real shape painted into it."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import Anatomy
from nnunetv2_conflunet.simulation.image_grid import Grid, smooth_field
from nnunetv2_conflunet.simulation.lesions import LesionStatistics, Shape
from nnunetv2_conflunet.simulation.patient import Patient, allowed_voxels, random_streams
from nnunetv2_conflunet.simulation.placement import Placement, Tissue, place_lesions
from nnunetv2_conflunet.simulation.rendering import Canvas, Look, add_lesions, scan
from open_ms.anatomy import RealBrain, deform_brain
from open_ms.filling import Texture
from open_ms.sheets import draw_plan_with_sheets

# Contrast and fading are chosen to match the signals by size in the two FLAIR volumes of Lesjak et al. 2017 (see
# docs/open_ms_cohort.md). The image already has noise and blur; these values add variation.
LOOK = Look(
    contrast=(0.37, 0.45),
    contrast_by_volume=((14.0, 60.0, 250.0, 1000.0), (1.0, 1.3, 1.4, 1.3)),
    fading=(0.25, 0.6),
    blur_mm=(0.0, 0.35),
    noise=(0.0, 0.02),
)
GAMMA = 0.9, 1.1
# Patches within a lesion: standard deviation in units of white matter and size of half a patch.
PATCHES, PATCH_MM = 0.05, 3.5
# Noise inside the lesions of patient19: standard deviation relative to white matter, and width, which is larger.
NOISE_FACTOR, NOISE_MM = 0.85, 0.63
# Large lesions stay close to the ventricles: increase of reluctance per mm of distance.
RELUCTANCE_PER_MM, FARTHEST_MM = 0.15, 12.0
# Distances over which the probability of periventricular lesions, and of further units of a sheet, falls to 1/e.
PERIVENTRICULAR_MM, SHEET_MM = 5.0, 3.0
# Probability of a lesion where no patient has one, relative to the mean over white matter.
OCCURRENCE_FLOOR = 0.5


def simulate_real_patient(
    brain: RealBrain,
    make_shape: Callable[..., Shape],
    grid: Grid,
    statistics: LesionStatistics | None,
    seed: np.random.SeedSequence,
) -> Patient:
    """Simulate one patient on a real background.

    Args:
        brain: the background.
        make_shape: shapes of the lesions, see :func:`.shapes.shape_maker`.
        grid: the grid of the image, 1 mm.
        statistics: distributions of the lesions; sheets are added. None for a patient without lesions.
        seed: the same seed gives the same patient.
    """
    brain_rng, plan_rng, place_rng, look_rng, scan_rng = random_streams(seed, 5)
    anatomy, occurrence = deform_brain(brain, grid, brain_rng)
    plan = [] if statistics is None else draw_plan_with_sheets(statistics, plan_rng)
    placement = place_lesions(plan, occurrence_tissue(anatomy, occurrence), place_rng, make_shape)
    signal = paint(anatomy, placement, brain.texture, look_rng)
    signal **= np.float32(scan_rng.uniform(*GAMMA))
    image = scan(signal, anatomy.brain, grid, LOOK, scan_rng)
    return Patient(image, placement.instances, placement.missed)


def occurrence_tissue(anatomy: Anatomy, occurrence: np.ndarray) -> Tissue:
    """Where lesions may be in a real brain: in white matter, where other patients have theirs.

    Args:
        anatomy: the brain.
        occurrence: (2, Z, Y, X) float32, frequency of lesions at each position: all lesions, those up to 2 mL.
    """
    allowed = allowed_voxels(anatomy)
    white = np.where(allowed & (anatomy.tissues["white"] > 0.5), anatomy.tissues["white"], 0)
    outside_mm = np.clip(anatomy.ventricle_distance_mm, 0, None)
    every, small = (where + OCCURRENCE_FLOOR * where[white > 0].mean() for where in occurrence)
    # Noise in single voxels must not affect a lesion's shape.
    gray = ndimage.gaussian_filter(anatomy.tissues["cortex"] + anatomy.tissues["deep_gray"], 1.5)
    return Tissue(
        spacing_mm=anatomy.grid.spacing_mm,
        allowed=allowed,
        densities=(white * every * np.exp(-outside_mm / PERIVENTRICULAR_MM), white * small),
        reluctance=(gray + RELUCTANCE_PER_MM * np.minimum(outside_mm, FARTHEST_MM)).astype(np.float32),
        ventricle_distance_mm=anatomy.ventricle_distance_mm,
        cluster_preference=white * np.exp(-outside_mm / SHEET_MM),
    )


def paint(anatomy: Anatomy, placement: Placement, texture: Texture, rng: np.random.Generator) -> np.ndarray:
    """The signal of a brain with lesions, (Z, Y, X) float32, 1 is white matter.

    Args:
        anatomy: the brain with the noise of its image.
        placement: its lesions.
        texture: noise of the image, which is added to the lesions as well.
        rng: source of the lesions' appearance.
    """
    grid = anatomy.grid
    canvas = Canvas(grid.shape)
    add_lesions(canvas, placement.units, grid.voxel_volume_mm3, LOOK, rng)
    noise = Texture(NOISE_FACTOR * texture.sd, NOISE_MM).sample(grid.shape, rng)
    inside = noise + PATCHES * smooth_field(grid, PATCH_MM, rng)
    signal = canvas.over(anatomy.signal) + np.clip(canvas.coverage, 0, 1) * inside
    return np.maximum(signal, 0).astype(np.float32)
