"""Export of the network's output for one case; runs in nnU-Net's export processes.

Each function takes the arguments of the nnU-Net function that it replaces, and passes only the semantic channels on to
that function.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from nnunetv2_conflunet.inference.case_files import OutputFiles
from nnunetv2_conflunet.inference.instances import instances_from_output
from nnunetv2_conflunet.nnunet_plugin.hand_over import replaced_exports
from nnunetv2_conflunet.postprocessing.size_filter import describe_removed, refuse_limits
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json, write_texts
from nnunetv2_conflunet.utilities.nnunet_folders import INSTANCES_FOLDER
from nnunetv2_conflunet.utilities.whole_files import is_whole


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
    """Write nnU-Net's files of a case, then its heads if probabilities are saved, its table and its instance map.

    The instances are made from the segmentation in the file. Files of an earlier run are removed first and the map is
    written last, so the files always match the segmentation.

    Raises:
        InputError: no instances can be made, for example because an image holds NaN, or a file cannot be written
            completely. nnU-Net's own file is then removed, since readers take missing voxels for background.
    """
    dataset_json = dataset_json_dict_or_file
    if isinstance(dataset_json, str):
        dataset_json = read_json(dataset_json)
    reader = plans_manager.image_reader_writer_class()
    files = OutputFiles.of(output_file_truncated, dataset_json["file_ending"], type(reader))
    files.instances.remove()
    files.instances.heads.unlink(missing_ok=True)
    semantic = _semantic_only(predicted_array_or_file, plans_manager.get_label_manager(dataset_json))
    with _written_whole([files.segmentation, *([files.probabilities] if save_probabilities else [])]):
        export_prediction_from_logits(
            semantic, properties_dict, configuration_manager, plans_manager, dataset_json, output_file_truncated,
            save_probabilities, num_threads_torch,
        )  # fmt: skip

    segmentation, _ = read_labels(files.segmentation, reader, declared_labels(dataset_json["labels"]))
    output = np.asarray(predicted_array_or_file)
    try:
        made = instances_from_output(
            segmentation, output, properties_dict, plans_manager, configuration_manager, dataset_json
        )
    except InputError as error:
        raise InputError(f"Case {files.instances.case} has no instances: {error}") from error
    print(f"{files.instances.case}: {describe_removed(made.result.report, made.settings.limits)}")
    try:
        refuse_limits(segmentation.shape, properties_dict["spacing"], made.settings.limits)
    except InputError as error:
        # The segmentation is of use all the same.
        print(f"Warning: {files.instances.case} has no instances. {error}")
    made.write(files.instances, reader, with_heads=save_probabilities)


def export_or_explain(*args, **kwargs) -> InputError | None:
    """Like :func:`export_prediction_with_instances`, but returns its InputError, so that the other cases continue."""
    try:
        export_prediction_with_instances(*args, **kwargs)
    except InputError as error:
        return error
    return None


def raise_failures(outcomes: Sequence) -> None:
    """Raise one InputError for all that :func:`export_or_explain` returned."""
    failures = [str(outcome) for outcome in outcomes if isinstance(outcome, InputError)]
    if failures:
        raise InputError(f"{len(failures)} of {len(outcomes)} cases failed: {' | '.join(failures)}")


@dataclass(frozen=True)
class _KeepsFault:
    """Exports a case, and keeps an InputError in a file.

    nnU-Net's validation ends with the first error of a case. Its processes may be those of several GPUs, so that only
    a file leads to the one that ends the validation.

    Attributes:
        export_case: takes the arguments of :func:`export_prediction_with_instances`.
    """

    export_case: Callable

    def __call__(self, prediction: Any, properties: dict, *others: Any) -> None:
        """Export a case; the arguments are positional, as nnU-Net's validation gives them."""
        output = others[3]
        fault = _fault_file(output)
        fault.unlink(missing_ok=True)
        try:
            self.export_case(prediction, properties, *others)
        except InputError as error:
            write_texts({fault: str(error)})


def _fault_file(output: str) -> Path:
    return Path(output).parent / INSTANCES_FOLDER / f".{Path(output).name}.fault.txt"


def _kept_fault(output: str) -> InputError | None:
    file = _fault_file(output)
    if not file.is_file():
        return None
    fault = InputError(file.read_text(encoding="utf-8"))
    file.unlink()
    return fault


@contextmanager
def _written_whole(files: list[Path]) -> Iterator[None]:
    """Make sure that the files that nnU-Net writes in the block are complete, and remove those that are not."""
    error = None
    try:
        yield
    except (OSError, RuntimeError) as raised:
        error = raised
    stumps = [file for file in files if file.is_file() and not is_whole(file)]
    for stump in stumps:
        stump.unlink()
    if error is not None and not (stumps or isinstance(error, OSError)):
        raise error
    missing = [file for file in files if not file.is_file()]
    if error is not None or missing:
        raise InputError(
            f"nnU-Net could not write {(missing or files)[0]} completely{f' ({error})' if error else ''}, so its case "
            "has no instances. Is the disk full? Make room, then predict again with --continue_prediction."
        ) from error


def _semantic_only(channels: np.ndarray | torch.Tensor, label_manager: LabelManager) -> np.ndarray | torch.Tensor:
    return channels[: label_manager.num_segmentation_heads]


def convert_semantic_logits_to_segmentation(
    predicted_logits, plans_manager, configuration_manager, label_manager, *args, **kwargs
):
    """nnU-Net's conversion, for the semantic channels."""
    semantic = _semantic_only(predicted_logits, label_manager)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        semantic, plans_manager, configuration_manager, label_manager, *args, **kwargs
    )


def resample_and_save_semantic(
    predicted, target_shape, output_file, plans_manager, configuration_manager, properties_dict, dataset_json, *args
) -> None:
    """nnU-Net's export for the next stage of a cascade, for the semantic channels."""
    semantic = _semantic_only(predicted, plans_manager.get_label_manager(dataset_json))
    resample_and_save(
        semantic, target_shape, output_file, plans_manager, configuration_manager, properties_dict, dataset_json, *args
    )


def exporting_instances(export_case: Callable = export_prediction_with_instances) -> AbstractContextManager[None]:
    """Within this context, nnU-Net's loops over cases pass each prediction to our export functions.

    No other network may predict in the same process in the meantime.

    Args:
        export_case: writes the files of a case.
    """
    return replaced_exports(export_case, convert_semantic_logits_to_segmentation, resample_and_save_semantic)


@contextmanager
def exporting_validation(
    outputs: Sequence[str], export_case: Callable = export_prediction_with_instances
) -> Iterator[None]:
    """As :func:`exporting_instances`, but a case that fails does not keep the others from being exported.

    Args:
        outputs: ``output_file_truncated`` of the cases whose faults are raised at the end.
        export_case: writes the files of a case.

    Raises:
        InputError: one for all cases that failed.
    """
    try:
        with exporting_instances(_KeepsFault(export_case)):
            yield
    except Exception:
        # If no case has a segmentation, nnU-Net's summary fails, and the faults of the cases say why.
        raise_failures([_kept_fault(output) for output in outputs])
        raise
    raise_failures([_kept_fault(output) for output in outputs])
