"""From one case's output, of the network or of a folder, to its instances, lesion table and files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, write_instances
from nnunetv2_conflunet.imageio.unknown import numbered_around, unknown_id
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.lesion_table import as_csv, lesion_table
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.inference.probability import foreground_probability_at, nearest_axis, where_looked_at
from nnunetv2_conflunet.postprocessing import Instantiation, InstantiationSettings, instantiate
from nnunetv2_conflunet.postprocessing.baselines.border_core import core_mask
from nnunetv2_conflunet.utilities.files import atomic_path

if TYPE_CHECKING:
    # It imports torch, which workers on stored predictions do not need.
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True, eq=False)
class CaseHeads:
    """The heads of one case as :func:`instantiate` expects them: on the network's grid, in the image's axis order.

    Attributes:
        heatmap: (X', Y', Z').
        offsets_mm: (dim, X', Y', Z'), component i along image axis i; without the first axis for 2D data.
        heads_box: (3, 2) half-open range of the image's voxels covered by the grid, since nnU-Net crops to nonzero.
    """

    heatmap: np.ndarray
    offsets_mm: np.ndarray
    heads_box: np.ndarray

    def save(self, path: Path) -> None:
        """Write a compressed .npz, from which instances can be made again; the box is called ``crop`` there."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                heatmap=self.heatmap.astype(np.float16),
                offsets_mm=self.offsets_mm.astype(np.float16),
                crop=self.heads_box,
            )


@dataclass(frozen=True, eq=False)
class CaseOutput:
    """The input for the instances of one case; arrays on the image's grid in nnU-Net's axis order.

    Attributes:
        segmentation: (X, Y, Z) integer labels.
        foreground: (X, Y, Z) bool, the voxels to divide into instances.
        properties: what nnU-Net's reader returned for the image.
        probability: (X, Y, Z) of the foreground; None if it was not saved.
        heads: None if the method does not need them.
        core: (X, Y, Z) bool, the cores of lesions; None unless the labels are cores and borders.
        unknown: the dataset's id of unknown instances, which no lesion gets in the files; None if there is none.
    """

    segmentation: np.ndarray
    foreground: np.ndarray
    properties: dict
    probability: np.ndarray | None
    heads: CaseHeads | None
    core: np.ndarray | None = None
    unknown: int | None = None


@dataclass(frozen=True, eq=False)
class CaseInstances:
    """The instances of one case.

    Attributes:
        output: their input.
        settings: how they were made.
        result: instances on the image's grid, center scores and a report.
        lesions: one row per instance, see :func:`.lesion_table`.
    """

    output: CaseOutput
    settings: InstantiationSettings
    result: Instantiation
    lesions: pd.DataFrame

    def write(self, files: InstanceFiles, writer: BaseReaderWriter, *, with_heads: bool = False) -> None:
        """Write the lesion table and then the map, both or neither.

        Args:
            files: their paths; the folder is created if needed.
            writer: an instance of the reader/writer that read the image.
            with_heads: first write the heads, if there are any.

        Raises:
            InputError: the format cannot hold the ids, or a file cannot be written completely.
        """
        if with_heads and self.output.heads is not None:
            self.output.heads.save(files.heads)
        properties, unknown = self.output.properties, self.output.unknown
        lesions = self.lesions.assign(id=numbered_around(self.lesions["id"], unknown))
        instances = numbered_around(self.result.instances, unknown)
        write_instances(instances, files.map, writer, properties, files.file_ending, {files.table: as_csv(lesions)})


def instances_of_case(output: CaseOutput, settings: InstantiationSettings) -> CaseInstances:
    """Make the instances of a case and describe them in a table.

    Raises:
        InputError: input of the method is missing, shapes differ, or heads are NaN or infinite.

    >>> mask = np.zeros((4, 5, 6), bool)
    >>> mask[1:4, 1:4, 1:3] = True
    >>> output = CaseOutput(mask.astype(int), mask, {"spacing": (1.0, 1.0, 1.0)}, None, None)
    >>> made = instances_of_case(output, InstantiationSettings(method="cc", min_extent_mm=2.0))
    >>> made.lesions["volume_mm3"].tolist()
    [18.0]
    """
    heads = {} if output.heads is None else vars(output.heads)
    spacing_mm = output.properties["spacing"]
    images = {"probability": output.probability, "core": output.core}
    result = instantiate(output.foreground, spacing_mm, settings, **images, **heads)
    lesions = lesion_table(
        result.instances,
        Geometry.from_properties(result.instances.shape, output.properties),
        labels=output.segmentation,
        probability=output.probability,
        center_scores=result.center_score,
        confidences=result.confidence,
        connectivity=settings.connectivity,
    )
    return CaseInstances(output, settings, result, lesions)


def instances_from_output(
    segmentation: np.ndarray,
    output: np.ndarray,
    properties: dict,
    plans: "PlansManager",
    configuration: "ConfigurationManager",
    dataset_json: dict,
) -> CaseInstances:
    """Instances of nnU-Net's segmentation, made with the heads and the settings of the model.

    The probability is computed only where the lesion table or the method needs it, and is 0 elsewhere.

    Args:
        segmentation: (X, Y, Z) labels on the image's grid, in the image's axis order.
        output: (C + 1 + dim, X', Y', Z') logits and heads in the network's axis order.
        properties: nnU-Net's, of the preprocessed case.
        plans: the plans of the model.
        configuration: its configuration.
        dataset_json: of the model.

    Raises:
        InputError: NaN or infinite heads, or invalid settings in the plans.
    """
    labels = plans.get_label_manager(dataset_json)
    settings = ModelSettings.from_plans(plans.plans).instantiation
    logits, heads = split_output(output, labels.num_segmentation_heads, properties, plans)
    foreground = np.isin(segmentation, labels.foreground_labels)
    needed = where_looked_at(foreground, properties["spacing"], settings)
    nearest = nearest_axis(properties["spacing"], plans, configuration)
    probability = foreground_probability_at(needed, logits, heads.heads_box, labels.has_regions, nearest)
    core = core_mask(segmentation, dataset_json["labels"])
    unknown = unknown_id(dataset_json)
    case = CaseOutput(segmentation, foreground, properties, probability, heads, core, unknown)
    return instances_of_case(case, settings)


def split_output(
    output: np.ndarray, n_semantic: int, properties: dict, plans: "PlansManager"
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
