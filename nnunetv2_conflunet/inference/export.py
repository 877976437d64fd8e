"""What happens to the output of the network for one case; runs in nnU-Net's export processes.

Each function has the arguments of the one of nnU-Net it stands in for, and gives nnU-Net's own function the semantic
channels only.
"""

from pathlib import Path

import numpy as np
import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
    export_prediction_from_logits,
    resample_and_save,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_conflunet.imageio import declared_labels, read_labels
from nnunetv2_conflunet.inference.instances import instances_from_logits
from nnunetv2_conflunet.postprocessing import write_case
from nnunetv2_conflunet.postprocessing.outputs import INSTANCES_FOLDER, case_files
from nnunetv2_conflunet.postprocessing.size_filter import describe_removed
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json


def instance_folder(output_file_truncated: str) -> Path:
    """Where the instances of a case go whose segmentation goes to ``<output_file_truncated><file_ending>``."""
    return Path(output_file_truncated).parent / INSTANCES_FOLDER


def heads_file(output_file_truncated: str) -> Path:
    """Where ``save_probabilities`` keeps the heads of a case."""
    return instance_folder(output_file_truncated) / f"{Path(output_file_truncated).name}.npz"


def instance_map_file(output_file_truncated: str, file_ending: str) -> Path:
    """The instance map of a case."""
    return case_files(instance_folder(output_file_truncated), Path(output_file_truncated).name, file_ending)[0]


def export_prediction_with_instances(
    predicted_array_or_file: np.ndarray | torch.Tensor,
    properties_dict: dict,
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    dataset_json_dict_or_file: dict | str,
    output_file_truncated: str,
    save_probabilities: bool = False,
    num_threads_torch: int = default_num_processes,
) -> None:
    """Write nnU-Net's files of a case, then its heads where probabilities are saved, its table and its instance map.

    The instances are made of the segmentation as it stands in the file. Those of an earlier run go first and the map
    comes last, so that all belong to the segmentation beside them at all times.

    Raises:
        InputError: no instances can be made, as where an image holds NaN; it names the case.
    """
    dataset_json = dataset_json_dict_or_file
    if isinstance(dataset_json, str):
        dataset_json = read_json(dataset_json)
    file_ending = dataset_json["file_ending"]
    n_semantic = plans_manager.get_label_manager(dataset_json).num_segmentation_heads
    folder, case = instance_folder(output_file_truncated), Path(output_file_truncated).name
    for older in (*case_files(folder, case, file_ending), heads_file(output_file_truncated)):
        older.unlink(missing_ok=True)
    export_prediction_from_logits(
        predicted_array_or_file[:n_semantic], properties_dict, configuration_manager, plans_manager, dataset_json,
        output_file_truncated, save_probabilities, num_threads_torch,
    )  # fmt: skip

    reader = plans_manager.image_reader_writer_class()
    declared = declared_labels(dataset_json["labels"])
    segmentation, _ = read_labels(output_file_truncated + file_ending, reader, declared)
    try:
        found = instances_from_logits(
            segmentation, predicted_array_or_file, properties_dict, plans_manager, dataset_json
        )
    except InputError as error:
        raise InputError(f"Case {case} has no instances: {error}") from error
    print(f"{case}: {describe_removed(found.result.report, found.settings)}")
    if save_probabilities:
        found.maps.save(heads_file(output_file_truncated))
    write_case(
        found.result,
        folder,
        case,
        properties_dict,
        reader,
        file_ending,
        labels=segmentation,
        probability=found.probability,
        connectivity=found.settings.connectivity,
    )


def _semantic_only(channels: np.ndarray | torch.Tensor, label_manager: LabelManager) -> np.ndarray | torch.Tensor:
    return channels[: label_manager.num_segmentation_heads]


def convert_semantic_logits_to_segmentation(
    predicted_logits, plans_manager, configuration_manager, label_manager, *args, **kwargs
):
    """nnU-Net's conversion, of the semantic channels."""
    semantic = _semantic_only(predicted_logits, label_manager)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        semantic, plans_manager, configuration_manager, label_manager, *args, **kwargs
    )


def resample_and_save_semantic(
    predicted, target_shape, output_file, plans_manager, configuration_manager, properties_dict, dataset_json, *args
) -> None:
    """nnU-Net's export for the next stage of a cascade, of the semantic channels."""
    semantic = _semantic_only(predicted, plans_manager.get_label_manager(dataset_json))
    resample_and_save(
        semantic, target_shape, output_file, plans_manager, configuration_manager, properties_dict, dataset_json, *args
    )
