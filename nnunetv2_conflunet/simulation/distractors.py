"""What shines in a FLAIR and is no lesion: specks, vessels, choroid plexus, bright patches of cortex."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import Anatomy
from nnunetv2_conflunet.simulation.growth import Tissue, grow
from nnunetv2_conflunet.simulation.lesions import IrregularEllipsoid, Shape, random_shape
from nnunetv2_conflunet.simulation.rendering import Canvas

# Brain in a whole head, to scale the counts to a crop.
WHOLE_BRAIN_ML = 1400.0


@dataclass(frozen=True)
class Kind:
    """One kind of distractor.

    Attributes:
        tissue: where it lies, a name of :data:`.templates.TISSUES`.
        count: mean number in a whole brain.
        volume_mm3: smallest and largest volume.
        peak: smallest and largest signal in its middle; 1 is white matter.
        is_tube: whether it is long and thin.
    """

    tissue: str
    count: float
    volume_mm3: tuple[float, float]
    peak: tuple[float, float]
    is_tube: bool = False


KINDS = (
    # Punctate hyperintensities: as bright as lesions and below the size at which one is counted.
    Kind("white", 14, (2.0, 7.0), (1.25, 1.6)),
    Kind("cortex", 10, (2.0, 8.0), (1.3, 1.6)),
    # Vessels and perivascular spaces with bright walls.
    Kind("white", 6, (5.0, 12.0), (1.15, 1.4), is_tube=True),
    Kind("cortex", 10, (6.0, 20.0), (1.3, 1.6), is_tube=True),
    # Patches of cortex, which FLAIR shows brighter near the insula and the cingulum.
    Kind("cortex", 14, (30.0, 250.0), (1.2, 1.4)),
    Kind("deep_gray", 3, (30.0, 200.0), (1.1, 1.25)),
)
CHOROID_PLEXUS = Kind("csf", 5, (40.0, 200.0), (1.0, 1.5))


def add_distractors(canvas: Canvas, anatomy: Anatomy, instances: np.ndarray, rng: np.random.Generator) -> None:
    """Paint distractors into tissue that no lesion takes or touches.

    Args:
        canvas: what to paint on.
        anatomy: the brain.
        instances: (Z, Y, X) the lesions.
        rng: source of the distractors.
    """
    free = (anatomy.brain > 0.95) & ~ndimage.binary_dilation(instances > 0, iterations=2)
    share = float(anatomy.brain.sum()) * anatomy.grid.voxel_volume_mm3 / 1000 / WHOLE_BRAIN_ML
    for kind in KINDS:
        weight = np.where(free, anatomy.tissues[kind.tissue], 0)
        _add_kind(canvas, anatomy, kind, weight, share, rng)
    # The plexus lies in the ventricles, of which a crop around them holds all.
    inside = np.where(free & (anatomy.ventricle_distance_mm < 0), anatomy.tissues["csf"], 0)
    _add_kind(canvas, anatomy, CHOROID_PLEXUS, inside, 1.0, rng)


def _add_kind(
    canvas: Canvas, anatomy: Anatomy, kind: Kind, weight: np.ndarray, share: float, rng: np.random.Generator
) -> None:
    """Draw the number of one kind and their places by `weight`, and add those that fit."""
    allowed = weight > 0.5
    candidates = np.flatnonzero(allowed)
    count = rng.poisson(kind.count * share)
    if len(candidates) == 0:
        return
    tissue = Tissue(anatomy.grid.spacing_mm, allowed, np.zeros(allowed.shape, np.float32), (), lambda *_: 0)
    for _ in range(count):
        center = np.array(np.unravel_index(candidates[rng.integers(len(candidates))], allowed.shape))
        volume_mm3 = float(np.exp(rng.uniform(*np.log(kind.volume_mm3))))
        shape = _tube(rng) if kind.is_tube else random_shape(rng)
        unit = grow(
            shape, volume_mm3, center, tissue, allowed, allowed, min_volume_mm3=0.5 * volume_mm3, min_extent_mm=0.0
        )
        if unit is not None:
            canvas.add(unit, float(rng.uniform(*kind.peak)), float(rng.uniform(0.3, 0.7)))


def _tube(rng: np.random.Generator) -> Shape:
    """A straight thin ellipsoid."""
    shape = random_shape(rng)
    axes = np.array([rng.uniform(3.0, 6.0), 1.0, 1.0])
    return IrregularEllipsoid(
        axes / np.prod(axes) ** (1 / 3), shape.rotation, shape.waves, shape.phases, 0.5 * shape.amplitudes
    )
