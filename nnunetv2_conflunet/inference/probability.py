"""The probability of the foreground on the image's grid, from saved files or from the network's output."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, softmax

from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.baselines.acls import PRESETS, reach_voxels
from nnunetv2_conflunet.postprocessing.heads import sample_maps
from nnunetv2_conflunet.postprocessing.voxels import Voxels

if TYPE_CHECKING:
    # It imports torch, which workers on stored predictions do not need.
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


def foreground_probability(probabilities: np.ndarray, labels: dict) -> np.ndarray:
    """Probability of any foreground label.

    Args:
        probabilities: (C, X, Y, Z) as nnU-Net saves them: softmax with background first, or one sigmoid per region.
        labels: of dataset.json; a list of several labels is a region.

    Returns:
        (X, Y, Z): the sum over the foreground channels, or the maximum over regions.

    >>> softmax = np.array([0.2, 0.5, 0.25]).reshape(3, 1, 1, 1)
    >>> foreground_probability(softmax, {"background": 0, "edema": 1, "core": 2}).item()
    0.75
    """
    if has_regions(labels):
        return probabilities.max(axis=0)
    return probabilities[1:].sum(axis=0)


def has_regions(labels: dict) -> bool:
    """Whether labels of dataset.json are regions, some of several labels.

    >>> has_regions({"background": 0, "whole": [1, 2], "core": 2})
    True
    """
    return any(isinstance(label, (list, tuple)) and len(label) > 1 for label in labels.values())


def foreground_probability_at(
    mask: np.ndarray,
    logits: np.ndarray,
    heads_box: np.ndarray,
    by_region: bool = False,
    nearest: int | None = None,
) -> np.ndarray:
    """1 minus the softmax probability of background, or the highest one of a region, at the voxels of a mask only.

    Logits are interpolated like nnU-Net's, so that the probability is that of ``--save_probabilities``.

    Args:
        mask: (X, Y, Z) bool on the image's grid.
        logits: (C, X', Y', Z') on the network's grid, axes in the image's order.
        heads_box: (3, 2) half-open range of the image's voxels covered by this grid.
        by_region: each channel is a region, which has a sigmoid of its own.
        nearest: the axis along which the nearest slice counts, see :func:`nearest_axis`; otherwise linear.

    Returns:
        (X, Y, Z) float32, 0 outside the mask and, as in nnU-Net's files, outside `heads_box`.

    >>> logits = np.stack([np.zeros((1, 2, 2)), np.full((1, 2, 2), np.log(3))])
    >>> foreground_probability_at(np.array([[[True, False]]]), logits, np.array([(0, 1), (0, 1), (0, 2)])).tolist()
    [[[0.75, 0.0]]]
    """
    probability = np.zeros(mask.shape, np.float32)
    box = tuple(slice(first, end) for first, end in heads_box)
    # Slice by slice, since positions and logits take far more memory than the result.
    for x in heads_box[0, 0] + np.flatnonzero(mask[box].any(axis=(1, 2))):
        voxels = np.argwhere(mask[x : x + 1, box[1], box[2]]) + heads_box[:, 0]
        voxels[:, 0] = x
        sampled = sample_maps(logits, heads_box, voxels, nearest)
        probability[tuple(voxels.T)] = expit(sampled.max(axis=0)) if by_region else 1 - softmax(sampled, axis=0)[0]
    return probability


def nearest_axis(
    spacing_mm: Sequence[float], plans: "PlansManager", configuration: "ConfigurationManager"
) -> int | None:
    """The image axis along which nnU-Net's resampling of logits takes the nearest slice, or None.

    nnU-Net does so, by default, across slices more than three times as thick as a voxel is wide, of the image or of the
    network's grid.

    Args:
        spacing_mm: (3,) voxel size of the image, in its axis order.
        plans: the plans of the model.
        configuration: its configuration.
    """
    # It imports torch.
    from nnunetv2.preprocessing.resampling.default_resampling import ANISO_THRESHOLD, determine_do_sep_z_and_axis

    options = {"force_separate_z": False, "order_z": 0} | configuration.configuration[
        "resampling_fn_probabilities_kwargs"
    ]
    if options["order_z"]:
        return None
    image_mm = [spacing_mm[axis] for axis in plans.transpose_forward]
    # As nnU-Net does: two-dimensional configurations have no spacing across slices.
    network_mm = [*image_mm[: 3 - len(configuration.spacing)], *configuration.spacing]
    threshold = options.get("separate_z_anisotropy_threshold", ANISO_THRESHOLD)
    _, axis = determine_do_sep_z_and_axis(options["force_separate_z"], network_mm, image_mm, threshold)
    return None if axis is None else plans.transpose_forward[axis]


def where_looked_at(
    foreground: np.ndarray, spacing_mm: tuple[float, ...], settings: InstantiationSettings
) -> np.ndarray:
    """Where the probability is needed, (X, Y, Z) bool: in the foreground; for some ACLS presets in a box around it.

    >>> where_looked_at(np.array([[[True, False]]]), (1.0, 1.0, 1.0), InstantiationSettings()).tolist()
    [[[True, False]]]
    """
    if settings.method != "acls" or not foreground.any():
        return foreground
    reach = reach_voxels(PRESETS[settings.acls_preset], np.asarray(spacing_mm, float))
    if not reach.any():
        return foreground
    first, last = Voxels.of(foreground).box
    needed = np.zeros(foreground.shape, bool)
    needed[tuple(map(slice, np.maximum(first - reach, 0), last + reach + 1))] = True
    return needed
