"""The baselines as functions on arrays, without a size filter."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnunetv2_conflunet.postprocessing.baselines.border_core import BORDER, CORE
from nnunetv2_conflunet.postprocessing.pipeline import UNFILTERED, instantiate
from nnunetv2_conflunet.utilities.array_checks import check_mask, check_probability, check_shape
from nnunetv2_conflunet.utilities.errors import InputError


def instantiate_cc(foreground: np.ndarray, *, connectivity: int = 26) -> np.ndarray:
    """Connected components of the foreground.

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool or integers; foreground is where it is not zero.
        connectivity: 6, 18 or 26 (in a plane these mean 4, 8, 8).

    Returns:
        int32 instances, shape of `foreground`; ids 1..N in the order of their first voxels (C order).

    Raises:
        InputError: a foreground that is no mask, another connectivity.

    >>> instantiate_cc(np.array([[1, 0, 0], [0, 1, 0]]), connectivity=6)
    array([[1, 0, 0],
           [0, 2, 0]], dtype=int32)
    """
    foreground = check_mask(foreground, "foreground")
    settings = replace(UNFILTERED, method="cc", connectivity=connectivity)
    return instantiate(foreground, (1.0,) * foreground.ndim, settings).instances


def instantiate_acls(
    probability: np.ndarray,
    *,
    threshold: float = 0.5,
    preset: str = "lou2021",
    foreground: np.ndarray | None = None,
    spacing_mm: Sequence[float] | None = None,
    connectivity: int = 26,
) -> np.ndarray:
    """Automated Confluent Lesion Splitting (Dworkin et al., AJNR 2018; Lou et al., NeuroImage: Clinical 2021).

    Centers are the connected clusters of foreground voxels where all eigenvalues of the Hessian of the smoothed
    probability are negative (below -1e-6 a squared voxel); every other foreground voxel goes to the nearest voxel of a
    center, of equally near ones to the center whose first voxel comes first (C order). Then as in
    :func:`instantiate_center_offset`: connected instances that cover the whole foreground.

    Args:
        probability: (X, Y, Z), (1, Y, X) or (Y, X), of the foreground, in [0, 1].
        threshold: foreground is where the probability is above it; not used with `foreground`.
        preset: ``"lou2021"``: probability set to zero outside the foreground, Gaussian of sigma 1 voxel, centers by 26
            neighbors, nearest center of the whole mask. ``"dworkin2018"``: probability not masked, sigma 1.2 mm,
            centers by 6 neighbors and of at least 10 mm3 (mm2 in a plane), nearest center of the same component.
        foreground: bool or integers, shape of `probability`: the mask to divide, if it is not a threshold's.
        spacing_mm: voxel size in mm along each axis. Default: 1 mm.
        connectivity: of components and of the resulting instances, 6, 18 or 26 (in a plane these mean 4, 8, 8).

    Returns:
        int32 instances, shape of `probability`; ids 1..N in the order of their first voxels (C order).

    Raises:
        InputError: NaN or values outside [0, 1], shapes that differ, an unknown preset or connectivity, a threshold
            outside [0, 1], a spacing that is not positive or of another length.

    >>> summits = np.exp(-np.minimum(*((np.arange(15) - x) ** 2 for x in (3, 11))) / 9)
    >>> int(instantiate_acls(np.outer(np.ones(9), summits)).max())
    2
    """
    probability = check_probability(probability)
    if foreground is None:
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold!r}; it must lie in [0, 1].")
        foreground = probability > threshold
    else:
        foreground = check_shape(foreground, probability.shape, "foreground", "probability")
    spacing_mm = (1.0,) * probability.ndim if spacing_mm is None else spacing_mm
    settings = replace(UNFILTERED, method="acls", acls_preset=preset, connectivity=connectivity)
    return instantiate(foreground, spacing_mm, settings, probability=probability).instances


def instantiate_watershed(
    foreground: np.ndarray, spacing_mm: Sequence[float], *, h_maxima_mm: float = 0.5, connectivity: int = 26
) -> np.ndarray:
    """Watershed of the distance transform in mm, from its extended h-maxima (Soille, Morphological Image Analysis).

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool or integers; foreground is where it is not zero.
        spacing_mm: voxel size in mm along each axis.
        h_maxima_mm: two maxima are two instances if the distance transform falls by more than this between them, below
            the lower one.
        connectivity: 6, 18 or 26 (in a plane these mean 4, 8, 8).

    Returns:
        int32 instances, shape of `foreground`; ids 1..N in the order of their first voxels (C order).

    Raises:
        InputError: a foreground that is no mask, a spacing that is not positive or of another length, a parameter that
            is not possible.

    >>> instantiate_watershed(np.array([[1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1]]), (1, 1))
    array([[1, 1, 1, 0, 2, 2, 2],
           [1, 1, 1, 1, 2, 2, 2],
           [1, 1, 1, 0, 2, 2, 2]], dtype=int32)
    """
    settings = replace(UNFILTERED, method="watershed", h_maxima_mm=h_maxima_mm, connectivity=connectivity)
    return instantiate(foreground, spacing_mm, settings).instances


def instantiate_border_core(labels: np.ndarray, spacing_mm: Sequence[float], *, connectivity: int = 26) -> np.ndarray:
    """Instances of cores and borders (Gotkowski et al., ParticleSeg3D, Powder Technology 2024).

    Each core, connected by faces, is an instance. A border voxel goes to the nearest core voxel in mm of its connected
    component, of equally near ones to the core whose first voxel comes first (C order). A component without a core is
    one instance. Pieces that are cut off from their core join the instance that they touch most.

    Args:
        labels: (X, Y, Z), (1, Y, X) or (Y, X) integers: 0 background, 1 core, 2 border.
        spacing_mm: voxel size in mm along each axis.
        connectivity: of components and of the resulting instances, 6, 18 or 26 (in a plane these mean 4, 8, 8).

    Returns:
        int32 instances, shape of `labels`; ids 1..N in the order of their first voxels (C order).

    Raises:
        InputError: other labels, a spacing that is not positive or of another length, another connectivity.

    >>> instantiate_border_core(np.array([[2, 1, 2, 2, 1, 2, 0, 2]]), (1.0, 1.0))
    array([[1, 1, 1, 2, 2, 2, 0, 3]], dtype=int32)
    """
    labels = np.asarray(labels)
    if not np.isin(labels, (0, CORE, BORDER)).all():
        raise InputError(f"labels holds other values than 0 (background), {CORE} (core) and {BORDER} (border).")
    settings = replace(UNFILTERED, method="border_core", connectivity=connectivity)
    return instantiate(labels, spacing_mm, settings, core=labels == CORE).instances
