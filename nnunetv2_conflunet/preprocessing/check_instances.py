"""Checks of labels, and of instance maps against the labels they belong to, before any long work starts."""

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_conflunet.imageio import Geometry, declared_labels, grid_fault, read_instances, read_labels
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, require_labels
from nnunetv2_conflunet.utilities.errors import InputError, list_lines
from nnunetv2_conflunet.utilities.parallel import try_cases


def check_instances(cases: list[RawCase], reader: BaseReaderWriter, labels: LabelManager, num_processes: int) -> None:
    """Check that every label is one, and that every instance map fits its label.

    Args:
        cases: the cases to check; their instance maps exist.
        reader: an instance of the dataset's reader.
        labels: of the dataset; voxels of its foreground labels belong to an instance, background and the ignore label
            do not.
        num_processes: processes to use.

    Raises:
        InputError: names every case without a label, or else every case with what is wrong with it: an unreadable
            file, values that dataset.json does not declare or that are no ids, another size, spacing, origin or
            direction than the label, or a support that differs from the label's foreground.
    """
    require_labels(cases)
    values = tuple(labels.foreground_labels), declared_labels(labels.label_dict)
    calls = {i.case: (i, reader, *values) for i in cases}
    _, faults = try_cases(check_case, calls, num_processes, "Checking instances")
    if faults:
        listed = list_lines([f"{case}: {fault}" for case, fault in faults.items()])
        raise InputError(f"{len(faults)} of {len(cases)} cases cannot be used:\n{listed}")


def check_case(
    case: RawCase, reader: BaseReaderWriter, foreground_labels: tuple[int, ...], declared: tuple[int, ...]
) -> None:
    """Raise an InputError for one case that cannot be used, see :func:`check_instances`."""
    label, label_properties = read_labels(case.label, reader, declared)
    instances, instance_properties = read_instances(case.instances, reader)
    grid = Geometry.from_properties(instances.shape, instance_properties)
    fault = grid_fault(
        case.instances, grid, case.label, Geometry.from_properties(label.shape, label_properties), reader
    )
    if fault is not None:
        raise InputError(fault)
    foreground = np.isin(label, foreground_labels)
    without_id = np.count_nonzero(foreground & (instances == 0))
    without_label = np.count_nonzero(~foreground & (instances > 0))
    if without_id or without_label:
        raise InputError(
            f"{without_id + without_label} voxels of {case.instances} differ from the foreground of its "
            f"label ({without_id} lesion voxels without an id, {without_label} voxels with an id outside lesions). "
            "Correct either file, or, with one label and no ignore label, let `nnUNetv2_conflunet_prepare "
            "--labels_from_instances` write labelsTr."
        )
