"""Checks of labels, and of instance maps against their labels, before any long computation starts."""

from dataclasses import dataclass

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_conflunet.imageio import Geometry, declared_labels, read_instances, read_labels, refuse_other_grid
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.parallel import try_cases


@dataclass(frozen=True)
class InstanceCheck:
    """What the labels and instance maps of a dataset are checked for. Equal checks find the same faults.

    Attributes:
        reader: class of the dataset's reader.
        foreground_labels: labels whose voxels must belong to an instance; not background or the ignore label.
        declared: every value that a label may hold.
    """

    reader: type[BaseReaderWriter]
    foreground_labels: tuple[int, ...]
    declared: tuple[int, ...]

    @classmethod
    def of(cls, reader: type[BaseReaderWriter], labels: LabelManager) -> "InstanceCheck":
        """The check for a dataset with this reader and these labels."""
        return cls(reader, tuple(labels.foreground_labels), declared_labels(labels.label_dict))

    def check(self, cases: list[RawCase], num_processes: int) -> None:
        """Check that every label is valid and that every instance map matches its label.

        Args:
            cases: the cases to check; their instance maps exist.
            num_processes: worker processes.

        Raises:
            InputError: names every case without a label, or else every faulty case and its fault: an unreadable file,
                values that dataset.json does not declare or that are not ids, a size, spacing, origin or direction that
                differs from the label's, or voxels that differ from the label's foreground.
        """
        missing = [case.case for case in cases if not case.label.is_file()]
        if missing:
            # If some labels exist, rewriting all of them is not the remedy.
            remedy = ", or let `nnUNetv2_conflunet_prepare --labels_from_instances` write them from the instance maps"
            raise InputError(
                f"{len(missing)} of {len(cases)} training cases have no label in {cases[0].label.parent}: "
                f"{list_some(missing)}. Put them there{remedy if len(missing) == len(cases) else ''}."
            )
        arguments = {case.case: (case,) for case in cases}
        _, faults = try_cases(self.check_case, arguments, num_processes, "Checking instances")
        if faults:
            listed = list_lines([f"{case}: {fault}" for case, fault in faults.items()])
            raise InputError(f"{len(faults)} of {len(cases)} cases cannot be used:\n{listed}")

    def check_case(self, case: RawCase) -> None:
        """Raise an InputError that says what is wrong with one case."""
        reader = self.reader()
        label, label_properties = read_labels(case.label, reader, self.declared)
        instances, properties = read_instances(case.instances, reader)
        label_grid = Geometry.from_properties(label.shape, label_properties)
        refuse_other_grid(
            case.instances, Geometry.from_properties(instances.shape, properties), case.label, label_grid, reader
        )
        foreground = np.isin(label, self.foreground_labels)
        without_id = np.count_nonzero(foreground & (instances == 0))
        without_label = np.count_nonzero(~foreground & (instances > 0))
        if without_id or without_label:
            raise InputError(
                f"{without_id + without_label} voxels of {case.instances} differ from the foreground of its label "
                f"({without_id} lesion voxels without an id, {without_label} voxels with an id outside lesions). "
                "Correct either file, or, with one label and no ignore label, let `nnUNetv2_conflunet_prepare "
                "--labels_from_instances` write labelsTr."
            )
