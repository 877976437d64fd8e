"""ACLS, Automated Confluent Lesion Splitting: centers are where the lesion probability is curved like a summit."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_conflunet.postprocessing.baselines.seeds import assign_to_nearest_seed
from nnunetv2_conflunet.postprocessing.pieces import Assignment
from nnunetv2_conflunet.postprocessing.voxels import Voxels, groups, in_scan_order

# scipy.ndimage.gaussian_filter's default: the kernel ends at this many sigmas.
TRUNCATE = 4.0
# Reach of the second differences, which are central differences of central differences.
REACH = 2
# Curvatures (probability / voxel2) smaller than this are the rounding of float32 probabilities.
FLAT = 1e-6


@dataclass(frozen=True)
class AclsPreset:
    """One published form of ACLS.

    Attributes:
        masked: set the probability to zero outside the foreground before smoothing.
        sigma: standard deviation of the smoothing Gaussian, in voxels or in mm.
        sigma_in_mm: whether `sigma` is in mm.
        full_connectivity: centers are connected by 26 neighbors (8 in a plane) instead of 6 (4).
        min_center_mm3: smaller centers are dropped (mm2 in a plane).
        inside_component: a voxel goes to the nearest center of its own connected component only.
    """

    masked: bool
    sigma: float
    sigma_in_mm: bool
    full_connectivity: bool
    min_center_mm3: float
    inside_component: bool


PRESETS = {
    # Lou et al., NeuroImage: Clinical 2021, as ConfLUNet's paper compares with it.
    "lou2021": AclsPreset(
        masked=True, sigma=1.0, sigma_in_mm=False, full_connectivity=True, min_center_mm3=0.0, inside_component=False
    ),
    # Dworkin et al., AJNR 2018; sigma and center size as `lesionclusters` of their R package lesiontools has them for
    # voxels of 1 mm.
    "dworkin2018": AclsPreset(
        masked=False, sigma=1.2, sigma_in_mm=True, full_connectivity=False, min_center_mm3=10.0, inside_component=True
    ),
}


def assign_by_curvature(
    voxels: Voxels, component: np.ndarray, probability: np.ndarray, spacing_mm: np.ndarray, preset: AclsPreset
) -> Assignment:
    """Centers from the curvature of the probability; a voxel goes to the nearest voxel of a center, in mm.

    Centers are numbered in the order in which their first voxels come; a tie goes to the lowest number.

    Args:
        voxels: the foreground.
        component: (N,) its connected components, see :meth:`Voxels.components`.
        probability: (X, Y, Z) or (Y, X) in [0, 1].
        spacing_mm: (dim,) voxel size.
        preset: one of :data:`PRESETS`.
    """
    n = len(voxels)
    is_center = np.zeros(n, bool)
    sigma = _sigma_voxels(preset, spacing_mm)
    mask = None
    if preset.masked:
        mask = np.zeros(probability.shape, bool)
        mask[tuple(voxels.coordinates.T)] = True
    # Smoothed by a Gaussian, no probability is curved by more than 1 / sigma^2.
    if (FLAT * sigma**2 < 1).all():
        for _, members in groups(component):
            is_center[members] = _summits(probability, voxels.coordinates[members], sigma, mask)
    seed_of = np.flatnonzero(is_center)
    seeds = Voxels(voxels.coordinates[seed_of])
    seed_label = seeds.components(3**voxels.dim - 1 if preset.full_connectivity else 2 * voxels.dim)
    if preset.min_center_mm3 and len(seeds):
        large = np.bincount(seed_label) * spacing_mm.prod() >= preset.min_center_mm3 * (1 - FLAT)
        seed_of, seed_label = seed_of[large[seed_label]], in_scan_order(seed_label[large[seed_label]])
    return assign_to_nearest_seed(
        voxels, component, spacing_mm, seed_of, seed_label, inside_component=preset.inside_component
    )


def reach_voxels(preset: AclsPreset, spacing_mm: np.ndarray) -> np.ndarray:
    """(dim,) how many voxels around the foreground ACLS looks at the probability; 0 for a preset that masks it.

    >>> reach_voxels(PRESETS["dworkin2018"], np.array([1.5, 1.0, 1.2])).tolist()
    [5, 7, 6]
    """
    return np.zeros(len(spacing_mm), np.int64) if preset.masked else _margin(_sigma_voxels(preset, spacing_mm))


def _sigma_voxels(preset: AclsPreset, spacing_mm: np.ndarray) -> np.ndarray:
    return preset.sigma / spacing_mm if preset.sigma_in_mm else np.full(len(spacing_mm), preset.sigma)


def _margin(sigma: np.ndarray) -> np.ndarray:
    """How many voxels away a smoothed second difference looks along each axis."""
    return (TRUNCATE * sigma + 0.5).astype(np.int64) + REACH


def _summits(
    probability: np.ndarray, coordinates: np.ndarray, sigma: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """(n,) bool: whether the Hessian of the smoothed probability is negative definite at each voxel.

    Outside the mask the probability counts as zero. Without a mask its outermost values go on beyond the border.
    """
    margin = _margin(sigma)
    # Wide enough that cutting out changes nothing at the voxels; beyond the border the filter goes on by itself.
    first = np.maximum(coordinates.min(axis=0) - margin, -REACH)
    last = np.minimum(coordinates.max(axis=0) + margin, np.array(probability.shape) - 1 + REACH)
    before, after = np.maximum(-first, 0), np.maximum(last + 1 - probability.shape, 0)
    box = tuple(slice(start, end) for start, end in zip(first + before, last + 1 - after, strict=True))
    inside, beyond = probability[box].astype(np.float64), np.column_stack([before, after])
    if mask is None:
        smooth = gaussian_filter(np.pad(inside, beyond, "edge"), sigma, mode="nearest", truncate=TRUNCATE)
    else:
        padded = np.pad(np.where(mask[box], inside, 0), beyond)
        smooth = gaussian_filter(padded, sigma, mode="constant", truncate=TRUNCATE)
    at = np.ravel_multi_index(tuple((coordinates - first).T), smooth.shape)
    step = np.array(smooth.strides) // smooth.itemsize
    value = smooth.ravel()

    def second_difference(i: int, j: int) -> np.ndarray:
        forth, across = value[at + step[i] + step[j]], value[at + step[i] - step[j]]
        return (forth - across - value[at - step[i] + step[j]] + value[at - step[i] - step[j]]) / 4

    # Sylvester's criterion on -H, lowered so that a flat direction does not count as curved. Voxel sizes do not
    # matter: scaling the axes does not change definiteness.
    a, b = -second_difference(0, 0) - FLAT, -second_difference(1, 1) - FLAT
    d = second_difference(0, 1)
    minor = a * b - d * d
    if len(step) == 2:
        return (a > 0) & (minor > 0)
    c = -second_difference(2, 2) - FLAT
    e, f = second_difference(0, 2), second_difference(1, 2)
    # -H has -d, -e, -f beside its diagonal; the product of the three carries the sign.
    return (a > 0) & (minor > 0) & (a * b * c - 2 * d * e * f - a * f * f - b * e * e - c * d * d > 0)
