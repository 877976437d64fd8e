"""Instances on the image's grid from the network's output for one case."""

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.special import softmax

from nnunetv2_conflunet.inference.instances import CaseHeads, CaseInstances, CaseOutput, instances_of_case
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.acls import PRESETS, reach_voxels
from nnunetv2_conflunet.postprocessing.heads import sample_maps
from nnunetv2_conflunet.postprocessing.voxels import Voxels


def instances_from_output(
    segmentation: np.ndarray, output: np.ndarray, properties: dict, plans: PlansManager, dataset_json: dict
) -> CaseInstances:
    """Instances of nnU-Net's segmentation, made with the heads and the settings of the model.

    The probability is computed only where the lesion table or the method needs it, and is 0 elsewhere.

    Args:
        segmentation: (X, Y, Z) labels on the image's grid, in the image's axis order.
        output: (C + 1 + dim, X', Y', Z') logits and heads in the network's axis order.
        properties: nnU-Net's, of the preprocessed case.
        plans: the plans of the model.
        dataset_json: of the model.

    Raises:
        InputError: NaN or infinite heads, or invalid settings in the plans.
    """
    labels = plans.get_label_manager(dataset_json)
    settings = ModelSettings.from_plans(plans.plans).instantiation
    logits, heads = split_output(output, labels.num_segmentation_heads, properties, plans)
    foreground = np.isin(segmentation, labels.foreground_labels)
    needed = _where_looked_at(foreground, properties["spacing"], settings)
    probability = foreground_probability_at(needed, logits, heads.heads_box)
    return instances_of_case(CaseOutput(segmentation, foreground, properties, probability, heads), settings)


def split_output(
    output: np.ndarray, n_semantic: int, properties: dict, plans: PlansManager
) -> tuple[np.ndarray, CaseHeads]:
    """Revert nnU-Net's transpose, for the arrays and for the components of the offsets.

    Args:
        output: (C + 1 + dim, X', Y', Z') in the network's axis order.
        n_semantic: C.
        properties: nnU-Net's, of the preprocessed case.
        plans: the plans.

    Returns:
        (C, X', Y', Z') semantic logits, and the heads, both still on the network's grid.
    """
    backward = list(plans.transpose_backward)
    output = output.transpose(0, *(axis + 1 for axis in backward))
    # Two-dimensional data has a first axis of length 1 that is never transposed and has no offset.
    missing = 3 - (output.shape[0] - n_semantic - 1)
    components = [n_semantic + 1 + axis - missing for axis in backward[missing:]]
    box = np.array([properties["bbox_used_for_cropping"][axis] for axis in backward])
    if not missing and box[0, 1] - box[0, 0] == 1 and properties["shape_before_cropping"][backward[0]] == 1:
        # A single slice in a dataset of volumes is treated as 2D: the network's middle slice and its in-plane offsets.
        output = output[:, output.shape[1] // 2][:, None]
        components = components[1:]
    return output[:n_semantic], CaseHeads(output[n_semantic], output[components], box)


def foreground_probability_at(mask: np.ndarray, logits: np.ndarray, heads_box: np.ndarray) -> np.ndarray:
    """1 minus the softmax probability of background, at the voxels of a mask only.

    Logits are interpolated linearly, as nnU-Net's default resampling of them does.

    Args:
        mask: (X, Y, Z) bool on the image's grid.
        logits: (C, X', Y', Z') on the network's grid, axes in the image's order.
        heads_box: (3, 2) half-open range of the image's voxels covered by this grid.

    Returns:
        (X, Y, Z) float32, 0 outside the mask.

    >>> logits = np.stack([np.zeros((1, 2, 2)), np.full((1, 2, 2), np.log(3))])
    >>> foreground_probability_at(np.array([[[True, False]]]), logits, np.array([(0, 1), (0, 1), (0, 2)])).tolist()
    [[[0.75, 0.0]]]
    """
    probability = np.zeros(mask.shape, np.float32)
    # Slice by slice, since positions and logits take far more memory than the result.
    for x in np.flatnonzero(mask.any(axis=(1, 2))):
        voxels = np.argwhere(mask[x : x + 1])
        voxels[:, 0] = x
        probability[tuple(voxels.T)] = 1 - softmax(sample_maps(logits, heads_box, voxels), axis=0)[0]
    return probability


def _where_looked_at(
    foreground: np.ndarray, spacing_mm: tuple[float, ...], settings: InstantiationSettings
) -> np.ndarray:
    """Where the probability is needed: in the foreground; for some ACLS presets in a box around it."""
    if settings.method != "acls" or not foreground.any():
        return foreground
    reach = reach_voxels(PRESETS[settings.acls_preset], np.asarray(spacing_mm, float))
    if not reach.any():
        return foreground
    first, last = Voxels.of(foreground).box
    needed = np.zeros(foreground.shape, bool)
    needed[tuple(map(slice, np.maximum(first - reach, 0), last + reach + 1))] = True
    return needed
