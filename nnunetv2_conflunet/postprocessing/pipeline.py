"""From the network's output to instances: one pipeline for all methods.

centers -> assignment -> connected pieces -> re-attachment -> merging -> size filter -> ids 1..N in scan order. The
methods differ in the first two stages, and only center-offset merges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunetv2_conflunet.postprocessing.acls import PRESETS, assign_by_curvature
from nnunetv2_conflunet.postprocessing.center_offset import assign_by_offsets, find_centers
from nnunetv2_conflunet.postprocessing.heads import check_heads
from nnunetv2_conflunet.postprocessing.merging import merge_regions
from nnunetv2_conflunet.postprocessing.pieces import Assignment, connected_regions
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import large_enough
from nnunetv2_conflunet.postprocessing.voxels import Voxels, first_voxels
from nnunetv2_conflunet.utilities.array_checks import (
    check_connectivity,
    check_mask,
    check_probability,
    check_shape,
    check_spacing,
    flat_axes,
)
from nnunetv2_conflunet.utilities.errors import InputError


@dataclass(frozen=True, eq=False)
class Instantiation:
    """The instances of one image.

    Attributes:
        instances: int32, shape of the foreground; ids 1..N in the order in which the instances' first voxels come when
            the array is read in C order (last axis fastest), 0 is background.
        center_score: (N,) float32, of instance i at i - 1: the heatmap at the peak that claimed it, NaN for an instance
            without such a peak.
        report: what happened: `method`, `n_voxels_foreground`, `n_centers` (found, with and without voxels),
            `n_instances`, `n_instances_without_center`, `n_pieces_merged`, `n_pieces_reattached`,
            `n_voxels_reattached`, `n_instances_removed`, `n_voxels_removed` and `removed_mm3` (`removed_mm2` in a
            plane), the last three by the size filter. `n_instances` and `n_instances_without_center` count after it.
    """

    instances: np.ndarray
    center_score: np.ndarray
    report: dict[str, Any]


def instantiate(
    foreground: np.ndarray,
    spacing_mm: Sequence[float],
    settings: InstantiationSettings | None = None,
    *,
    heatmap: np.ndarray | None = None,
    offsets_mm: np.ndarray | None = None,
    heads_box: np.ndarray | None = None,
    probability: np.ndarray | None = None,
) -> Instantiation:
    """Make instances of a semantic foreground; only the size filter removes any of it.

    Args:
        foreground: (X, Y, Z), (1, Y, X) or (Y, X) bool or integers; foreground is where it is not zero.
        spacing_mm: voxel size in mm along each axis of `foreground`; that of a first axis of length 1 plays no part.
        settings: the method and its parameters; None takes the defaults.
        heatmap: ``center_offset``: see :func:`instantiate_center_offset`.
        offsets_mm: ``center_offset``: likewise.
        heads_box: ``center_offset``: likewise.
        probability: ``acls``: of the foreground, in [0, 1], shape of `foreground`.

    Raises:
        InputError: an input that the method needs is missing; shapes that differ; NaN or infinite heads; probabilities
            outside [0, 1]; a spacing that is not positive or of another length.
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

    if settings.method == "center_offset":
        if heatmap is None or offsets_mm is None:
            raise InputError("Method center_offset needs heatmap and offsets_mm; use cc or acls without them.")
        heads = check_heads(heatmap, offsets_mm, shape, spacing, heads_box)
        centers = find_centers(
            heads,
            heatmap_threshold=settings.heatmap_threshold,
            window_mm=settings.window_mm,
            min_prominence=settings.min_prominence,
            min_consistency=settings.min_consistency,
            top_k=settings.top_k,
        )
        assignment = assign_by_offsets(voxels, heads, centers)
    elif settings.method == "acls":
        if probability is None:
            raise InputError("Method acls needs probability; use cc without it.")
        probability = check_shape(check_probability(probability), shape, "probability", "foreground")
        assignment = assign_by_curvature(
            voxels, component, probability[0] if flat else probability, spacing, PRESETS[settings.acls_preset]
        )
    else:
        # Without centers every connected component is an instance of its own.
        assignment = Assignment(np.zeros(len(voxels), np.int64), np.zeros(len(voxels)), np.zeros(0, np.float32))

    regions = connected_regions(voxels, assignment, connectivity, component)
    n_pieces = len(regions.center)
    if settings.method == "center_offset" and settings.merge is not None:
        regions = merge_regions(voxels, regions, heads, settings.merge, connectivity)
    large, removed = large_enough(voxels, regions.instance, spacing, settings.limits)
    # Whole instances go, so that the others stay in the order of their first voxels.
    stays = large[first_voxels(regions.instance)]
    center = regions.center[stays]
    instances = np.zeros(mask.shape, np.int32)
    flat = np.ravel_multi_index(tuple(voxels.coordinates.T), mask.shape)
    instances.reshape(-1)[flat[large]] = np.cumsum(stays)[regions.instance[large] - 1]
    report = {
        "method": settings.method,
        "n_voxels_foreground": len(voxels),
        "n_centers": len(assignment.scores),
        "n_instances": len(center),
        "n_instances_without_center": int(np.count_nonzero(center == 0)),
        "n_pieces_merged": n_pieces - len(regions.center),
        "n_pieces_reattached": regions.n_reattached_pieces,
        "n_voxels_reattached": regions.n_reattached_voxels,
        **removed,
    }
    # Index 0 stands for no center.
    score = np.append(np.float32(np.nan), assignment.scores)[center]
    return Instantiation(instances.reshape(shape), score.astype(np.float32), report)
