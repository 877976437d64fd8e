"""From the network's output to instances: one pipeline for all methods.

centers -> assignment -> connected pieces -> re-attachment -> merging -> size and confidence filters -> ids 1..N in scan
order. The methods differ in the first two stages, and only center-offset merges.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnunetv2_conflunet.postprocessing.assignment import Assigner
from nnunetv2_conflunet.postprocessing.baselines.acls import PRESETS, assign_by_curvature
from nnunetv2_conflunet.postprocessing.baselines.border_core import assign_by_cores
from nnunetv2_conflunet.postprocessing.baselines.watershed import assign_by_watershed
from nnunetv2_conflunet.postprocessing.heads import HeadMaps
from nnunetv2_conflunet.postprocessing.merging import merge_regions
from nnunetv2_conflunet.postprocessing.pieces import Assignment, Instantiation, connected_regions, instance_confidence
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import large_enough
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.array_checks import (
    check_connectivity,
    check_mask,
    check_probability,
    check_shape,
    check_spacing,
    flat_axes,
)
from nnunetv2_conflunet.utilities.errors import InputError

# Of the methods as functions on arrays.
UNFILTERED = InstantiationSettings(min_volume_mm3=0.0, min_extent_mm=0.0)


def instantiate(
    foreground: np.ndarray,
    spacing_mm: Sequence[float],
    settings: InstantiationSettings | None = None,
    *,
    heatmap: np.ndarray | None = None,
    offsets_mm: np.ndarray | None = None,
    heads_box: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    core: np.ndarray | None = None,
) -> Instantiation:
    """Make instances of a semantic foreground; only the size filter and `min_confidence` remove any of it.

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool or integers; foreground is where it is not zero.
        spacing_mm: voxel size in mm along each axis of `foreground`; that of a first axis of length 1 plays no part.
        settings: the method and its parameters; None takes the defaults.
        heatmap: for ``center_offset``, see :func:`instantiate_center_offset`.
        offsets_mm: likewise.
        heads_box: likewise.
        probability: of the foreground, in [0, 1], shape of `foreground`; for ``acls``, and for the confidences.
        core: for ``border_core``, bool or integers, shape of `foreground`; cores are where it is not zero.

    Raises:
        InputError: an input that the method or `min_confidence` needs is missing; shapes that differ; NaN or infinite
            heads; probabilities outside [0, 1]; a spacing that is not positive or of another length.

    >>> instantiate(np.eye(3) > 0, (1.0, 1.0), InstantiationSettings(method="cc")).report["n_instances"]
    1
    """
    settings = settings or InstantiationSettings()
    mask = check_mask(foreground, "foreground")
    shape = mask.shape
    spacing = check_spacing(spacing_mm, mask.ndim)
    flat = len(flat_axes(mask.ndim, shape))
    mask, spacing = (mask[0] if flat else mask), spacing[flat:]
    connectivity = check_connectivity(settings.connectivity, mask.ndim)
    voxels = Voxels.of(mask)
    component = voxels.components(connectivity)
    if probability is not None:
        probability = check_shape(probability, shape, "probability", "foreground")[(0,) * flat]
    elif settings.min_confidence:
        raise InputError("min_confidence needs probability; predict with --save_probabilities, or set it to 0.")

    if settings.method == "center_offset":
        if heatmap is None or offsets_mm is None:
            raise InputError("Method center_offset needs heatmap and offsets_mm; use cc or acls without them.")
        heads = HeadMaps.of(heatmap, offsets_mm, shape, spacing, heads_box)
        assigner = Assigner(voxels, heads, [settings])
        n_centers = len(assigner.centers(settings).scores)
        if settings.top_k is not None and n_centers > settings.top_k:
            warnings.warn(f"{n_centers} centers found; top_k keeps the {settings.top_k} highest.", stacklevel=2)
        assignment = assigner.assign(settings)
    elif settings.method == "acls":
        if probability is None:
            raise InputError("Method acls needs probability; use cc without it.")
        preset = PRESETS[settings.acls_preset]
        assignment = assign_by_curvature(voxels, component, check_probability(probability), spacing, preset)
    elif settings.method == "border_core":
        if core is None:
            raise InputError("Method border_core needs core; use cc without it.")
        is_core = check_shape(check_mask(core, "core"), shape, "core", "foreground").reshape(mask.shape)
        assignment = assign_by_cores(voxels, component, is_core[tuple(voxels.coordinates.T)], spacing)
    elif settings.method == "watershed":
        assignment = assign_by_watershed(voxels, component, spacing, mask.shape, settings.h_maxima_mm, connectivity)
    else:
        # Without centers every connected component is an instance of its own.
        assignment = Assignment(np.zeros(len(voxels), np.int64), np.zeros(len(voxels)), np.zeros(0, np.float32))

    regions = connected_regions(voxels, assignment, connectivity, component)
    n_pieces = len(regions.center)
    if settings.method == "center_offset" and settings.merge is not None:
        regions = merge_regions(voxels, regions, heads, settings.merge, connectivity)
    score = np.append(np.float32(np.nan), assignment.scores)[regions.center].astype(np.float32)  # 0 is no center
    inside = None if probability is None else probability[tuple(voxels.coordinates.T)]
    confidence = instance_confidence(regions.instance, inside)
    sure = ~(confidence < settings.min_confidence) if settings.min_confidence else None
    kept, removed = large_enough(voxels, regions.instance, spacing, settings.limits, sure)
    instances, stays = regions.painted(voxels, kept, mask.shape)
    report = {
        "method": settings.method,
        "n_voxels_foreground": len(voxels),
        "n_centers": len(assignment.scores),
        "n_instances": int(np.count_nonzero(stays)),
        "n_instances_without_center": int(np.count_nonzero(regions.center[stays] == 0)),
        "n_pieces_merged": n_pieces - len(regions.center),
        "n_pieces_reattached": regions.n_reattached_pieces,
        "n_voxels_reattached": regions.n_reattached_voxels,
        **removed,
    }
    return Instantiation(instances.reshape(shape), score[stays], confidence[stays], report)


def instantiate_center_offset(
    foreground: np.ndarray,
    heatmap: np.ndarray,
    offsets_mm: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    heatmap_threshold: float = 0.1,
    window_mm: float = 3.0,
    min_prominence: float = 0.0,
    min_consistency: float = 0.0,
    top_k: int | None = None,
    connectivity: int = 26,
    heads_box: np.ndarray | None = None,
) -> np.ndarray:
    """Instances from a center heatmap and offsets (Wynen et al., ISBI 2024; Panoptic-DeepLab, Cheng et al. 2020).

    A center is a voxel of the heatmap at or above the threshold that nothing in the window around it exceeds; a
    plateau is one center. A foreground voxel belongs to the center nearest (mm) to where its offset points; of equally
    near centers the higher one, then the first in C order. Every instance is connected and every foreground voxel is in
    one: a connected component that no center claims is an instance of its own, a piece cut off from its instance joins
    the instance it touches most. `docs/instantiation.md` has every rule.

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool or integers; foreground is where it is not zero.
        heatmap: (X', Y', Z') floating point. Another shape than the foreground's is another grid over the same extent;
            centers are found on the heatmap's grid, and voxels sample the offsets at their own position.
        offsets_mm: (dim, X', Y', Z') from a voxel to its center in mm, one component an axis in the axes' order. A
            single slice (1, Y, X) has two components.
        spacing_mm: voxel size of the foreground in mm along each axis.
        heatmap_threshold: lowest value of a center.
        window_mm: full width of the window; along each axis the largest odd number of voxels that fits, at least 3.
        min_prominence: in [0, 1): a center is left out if a path over the heatmap leads from it to a higher one (of
            equally high ones the first in C order is the higher) and falls by a smaller share of its height. Paths lead
            over 26 neighbors, in a plane 8. 0, the paper's, keeps all.
        min_consistency: not negative: a center is left out if the offset at it ends nearer to another center than this
            many times its distance from itself, the lowest centers judged first. 0, the paper's, keeps all.
        top_k: keep this many of the highest centers, with a warning when that leaves some out.
        connectivity: 6, 18 or 26 (in a plane these mean 4, 8, 8).
        heads_box: (dim, 2) half-open range of foreground voxels that the heads cover. Default: all of them.

    Returns:
        int32 instances, shape of `foreground`; ids 1..N in the order of their first voxels (C order).

    Raises:
        InputError: shapes that do not belong together, NaN or infinite heads, a spacing that is not positive or of
            another length, a parameter that is not possible.

    >>> line, heatmap, offsets_mm = np.ones((1, 5)), np.array([[0, 0.9, 0, 0.8, 0]]), np.zeros((2, 1, 5))
    >>> instantiate_center_offset(line, heatmap, offsets_mm, (1.0, 1.0))
    array([[1, 1, 1, 2, 2]], dtype=int32)
    """
    settings = replace(
        UNFILTERED,
        heatmap_threshold=heatmap_threshold,
        window_mm=window_mm,
        min_prominence=min_prominence,
        min_consistency=min_consistency,
        top_k=top_k,
        connectivity=connectivity,
    )
    heads = {"heatmap": heatmap, "offsets_mm": offsets_mm, "heads_box": heads_box}
    return instantiate(foreground, spacing_mm, settings, **heads).instances
