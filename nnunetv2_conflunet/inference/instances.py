"""From the logits of one case on the network's grid to its instances on the image's grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.special import softmax

from nnunetv2_conflunet.postprocessing import Instantiation, InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.acls import PRESETS, reach_voxels
from nnunetv2_conflunet.postprocessing.heads import sample_maps
from nnunetv2_conflunet.postprocessing.voxels import Voxels
from nnunetv2_conflunet.utilities.files import atomic_path


@dataclass(frozen=True, eq=False)
class NetworkMaps:
    """Output of the network with its axes in the image's order, still on the network's grid.

    Attributes:
        logits: (C, X', Y', Z') semantic logits.
        heatmap: (X', Y', Z').
        offsets_mm: (dim, X', Y', Z'), component i along image axis i; without the first axis for 2D data.
        crop: (3, 2) half-open range of the image's voxels that the grid covers; nnU-Net crops to nonzero.
    """

    logits: np.ndarray
    heatmap: np.ndarray
    offsets_mm: np.ndarray
    crop: np.ndarray

    @classmethod
    def of(cls, output: np.ndarray, n_semantic: int, properties: dict, plans: PlansManager) -> "NetworkMaps":
        """Revert nnU-Net's transpose, of the arrays and of the offsets' components.

        Args:
            output: (C + 1 + dim, X', Y', Z') in the network's axis order.
            n_semantic: C.
            properties: nnU-Net's, of the preprocessed case.
            plans: the plans.
        """
        backward = list(plans.transpose_backward)
        output = output.transpose(0, *(axis + 1 for axis in backward))
        # Two-dimensional data has a first axis of length 1 that never moves and has no offset.
        missing = 3 - (output.shape[0] - n_semantic - 1)
        components = [n_semantic + 1 + axis - missing for axis in backward[missing:]]
        crop = np.array([properties["bbox_used_for_cropping"][axis] for axis in backward])
        if not missing and crop[0, 1] - crop[0, 0] == 1 and properties["shape_before_cropping"][backward[0]] == 1:
            # A single slice in a dataset of volumes is a plane: the network's middle slice, its offsets in the plane.
            output = output[:, output.shape[1] // 2][:, None]
            components = components[1:]
        return cls(output[:n_semantic], output[n_semantic], output[components], crop)

    def save(self, path: Path) -> None:
        """Write heatmap, offsets and crop, from which instances can be made again, as a compressed .npz."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                heatmap=self.heatmap.astype(np.float16),
                offsets_mm=self.offsets_mm.astype(np.float16),
                crop=self.crop,
            )

    def foreground_probability(self, mask: np.ndarray) -> np.ndarray:
        """1 - the softmax probability of background, at the voxels of a mask only.

        Logits are interpolated linearly, as nnU-Net's default resampling of them does.

        Args:
            mask: (X, Y, Z) bool on the image's grid.

        Returns:
            (X, Y, Z) float32, 0 outside the mask.
        """
        probability = np.zeros(mask.shape, np.float32)
        # One slice at a time, since positions and logits take far more memory than the result.
        for x in np.flatnonzero(mask.any(axis=(1, 2))):
            voxels = np.argwhere(mask[x : x + 1]) + (x, 0, 0)
            probability[tuple(voxels.T)] = 1 - softmax(sample_maps(self.logits, self.crop, voxels), axis=0)[0]
        return probability


@dataclass(frozen=True, eq=False)
class CaseInstances:
    """The instances of one case and what they were made from.

    Attributes:
        result: instances on the image's grid, center scores and a report.
        probability: (X, Y, Z) float32, of the foreground; 0 outside it, except where the method looks at it too.
        maps: the network's output.
        settings: how they were made.
    """

    result: Instantiation
    probability: np.ndarray
    maps: NetworkMaps
    settings: InstantiationSettings


def instances_from_logits(
    segmentation: np.ndarray, output: np.ndarray, properties: dict, plans: PlansManager, dataset_json: dict
) -> CaseInstances:
    """Instances of nnU-Net's segmentation by the heads and the settings of the model.

    Args:
        segmentation: (X, Y, Z) labels on the image's grid, in the image's axis order.
        output: (C + 1 + dim, X', Y', Z') logits and heads in the network's axis order.
        properties: nnU-Net's, of the preprocessed case.
        plans: the plans of the model.
        dataset_json: of the model.
    """
    labels = plans.get_label_manager(dataset_json)
    maps = NetworkMaps.of(np.asarray(output), labels.num_segmentation_heads, properties, plans)
    foreground = np.isin(segmentation, labels.foreground_labels)
    settings = InstantiationSettings.from_plans(plans.plans)
    probability = maps.foreground_probability(_where_looked_at(foreground, properties["spacing"], settings))
    result = instantiate(
        foreground, properties["spacing"], settings,
        heatmap=maps.heatmap, offsets_mm=maps.offsets_mm, heads_box=maps.crop,
        probability=probability if settings.method == "acls" else None,
    )  # fmt: skip
    return CaseInstances(result, probability, maps, settings)


def _where_looked_at(
    foreground: np.ndarray, spacing_mm: Sequence[float], settings: InstantiationSettings
) -> np.ndarray:
    """Where the lesion table and the method look at the probability: the foreground, for some ACLS a box around it."""
    if settings.method != "acls" or not foreground.any():
        return foreground
    reach = reach_voxels(PRESETS[settings.acls_preset], np.asarray(spacing_mm, float))
    if not reach.any():
        return foreground
    first, last = Voxels.of(foreground).box
    needed = np.zeros(foreground.shape, bool)
    needed[tuple(map(slice, np.maximum(first - reach, 0), last + reach + 1))] = True
    return needed
