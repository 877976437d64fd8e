"""Distances between the surfaces of matched lesions."""

import numpy as np

from nnunetv2_conflunet.evaluation.metrics.formulas import DISTANCES
from nnunetv2_conflunet.evaluation.metrics.matching import Matches
from nnunetv2_conflunet.evaluation.metrics.overlap import Foreground
from nnunetv2_conflunet.postprocessing.voxels import groups
from nnunetv2_conflunet.utilities.errors import InputError

HD_PERCENTILE = 95
SURFACE_METRICS = (*DISTANCES, "NSD")


def require_surface_distance() -> None:
    """Raise an InputError if the library for surface distances is not installed."""
    try:
        import surface_distance  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Surface distances need the package surface-distance; install it with `pip install surface-distance`."
        ) from error


def surface_distances(
    foreground: Foreground, matches: Matches, spacing_mm: tuple[float, ...], nsd_tolerance_mm: float
) -> dict[str, np.ndarray]:
    """Surface distances of every matched pair, by DeepMind's ``surface_distance`` on a crop around the pair.

    Args:
        foreground: of both maps.
        matches: the pairs.
        spacing_mm: voxel size along each axis.
        nsd_tolerance_mm: largest distance that NSD counts as agreement.

    Returns:
        Each (M,) float64: ``ASD_mm``, the mean of the two average distances from one surface to the other;
        ``HD95_mm``, the larger of the two 95th percentiles; ``NSD`` in [0, 1], the share of both surfaces within the
        tolerance (Nikolov et al., 2021). Surface elements are weighted by their area.
    """
    import surface_distance as library

    coordinates = foreground.coordinates
    voxels_of_prediction = _voxels_by_instance(foreground.prediction)
    voxels_of_reference = _voxels_by_instance(foreground.reference)
    found = {name: np.zeros(len(matches.prediction)) for name in SURFACE_METRICS}
    for pair, (prediction, reference) in enumerate(zip(matches.prediction, matches.reference, strict=True)):
        masks = _crop(coordinates[voxels_of_reference[reference]], coordinates[voxels_of_prediction[prediction]])
        distances = library.compute_surface_distances(*masks, spacing_mm)
        found["ASD_mm"][pair] = np.mean(library.compute_average_surface_distance(distances))
        found["HD95_mm"][pair] = library.compute_robust_hausdorff(distances, HD_PERCENTILE)
        found["NSD"][pair] = library.compute_surface_dice_at_tolerance(distances, nsd_tolerance_mm)
    return found


def _voxels_by_instance(ids: np.ndarray) -> list[np.ndarray]:
    """The positions in `ids` of each instance, by ascending id."""
    within = np.flatnonzero(ids)
    return [within[members] for _, members in groups(ids[within])]


def _crop(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two masks in their common bounding box, from their (V, ndim) coordinates."""
    both = np.concatenate([first, second])
    lowest = both.min(axis=0)
    masks = np.zeros((2, *(both.max(axis=0) - lowest + 1)), bool)
    for mask, voxels in zip(masks, (first, second), strict=True):
        mask[tuple((voxels - lowest).T)] = True
    return masks[0], masks[1]
