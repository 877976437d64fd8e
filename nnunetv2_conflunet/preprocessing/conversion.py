"""Labels from instances, and instances from labels, for datasets that have only one of the two."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import declared_labels, read_instances, read_labels, write_instances
from nnunetv2_conflunet.imageio.unknown import numbered_around
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.utilities.array_checks import Connectivity
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.files import moved_together
from nnunetv2_conflunet.utilities.parallel import try_cases


def write_labels_from_instances(dataset: RawDataset, num_processes: int, overwrite: bool) -> int:
    """Write ``labelsTr``: the label of the only foreground class inside instances, 0 elsewhere.

    Returns:
        The number of files written.

    Raises:
        InputError: several foreground labels (ids do not say which), an ignore label, a missing instance map, labels
            that dataset.json lists outside the dataset's folder, or existing labels while `overwrite` is False.
    """
    labels = dataset.label_manager()
    if labels.has_ignore_label:
        raise InputError(
            f"{dataset.folder.name} has an ignore label; instance maps do not say which voxels are unlabeled. "
            "Write labelsTr yourself."
        )
    if len(labels.foreground_labels) != 1:
        raise InputError(
            f"{dataset.folder.name} has {len(labels.foreground_labels)} foreground labels; instance maps do not say "
            "which label an instance has. Write labelsTr yourself."
        )
    cases = dataset.require_instances(list(dataset.training_cases()))
    # A dataset.json from someone else must not determine which files on this machine are overwritten.
    folder = os.path.abspath(dataset.folder)
    elsewhere = [str(case.label) for case in cases if not Path(os.path.abspath(case.label)).is_relative_to(folder)]
    if elsewhere:
        raise InputError(
            f"dataset.json of {dataset.folder.name} lists labels outside its folder: {list_some(elsewhere, 3)}. Only "
            "labels within the folder are written; write the others yourself."
        )
    targets = {case.case: case.label for case in cases}
    refuse_existing(list(targets.values()), overwrite)
    write = partial(_write_label, dataset, dataset.reader(), int(labels.foreground_labels[0]))
    with writing_every(write, cases, targets, num_processes, "Writing labels"):
        return len(cases)


def write_instances_from_labels(
    dataset: RawDataset, num_processes: int, overwrite: bool, connectivity: Connectivity = 26
) -> int:
    """Write ``instancesTr``: the connected components of each foreground label.

    Lesions that touch become one instance; separate them by hand before training.

    Args:
        connectivity: 6, 18 or 26 in three dimensions; 4 or 8 in two.

    Returns:
        The number of files written.

    Raises:
        InputError: a label is missing, cannot be read, or holds values that dataset.json does not declare; or instance
            maps exist and `overwrite` is False.
    """
    cases = dataset.require_labels()
    targets = {case.case: case.instances for case in cases}
    refuse_existing(list(targets.values()), overwrite)
    write = partial(_write_components, dataset, dataset.reader(), connectivity)
    with writing_every(write, cases, targets, num_processes, "Writing instances"):
        return len(cases)


def read_components(
    case: RawCase,
    dataset: RawDataset,
    reader: BaseReaderWriter,
    connectivity: Connectivity,
    unknown: int | None = None,
) -> tuple[np.ndarray, dict]:
    """The connected components of a case's label, see :func:`label_components`, and the reader's properties.

    With regions, which are parts of a lesion, those of all labels together. No component has the id `unknown`.
    """
    labels = dataset.label_manager()
    label, properties = read_labels(case.label, reader, declared_labels(labels.label_dict))
    foreground = tuple(labels.foreground_labels)
    if labels.has_regions:
        label, foreground = np.isin(label, foreground).astype(np.uint8), (1,)
    # cc3d gives uint16, in which one more than the highest id may be 0.
    components = label_components(label, foreground, connectivity).astype(np.int32)
    return numbered_around(components, unknown), properties


def label_components(
    label: np.ndarray, foreground_labels: tuple[int, ...], connectivity: Connectivity = 26
) -> np.ndarray:
    """Connected components of each foreground label.

    Args:
        label: (X, Y, Z) integers; two-dimensional images have X = 1.
        foreground_labels: the labels to take; touching voxels of different labels are different instances.
        connectivity: 6, 18 or 26, as in connected-components-3d. In a single slice, 6 means 4, and 18 and 26 mean 8.

    Returns:
        (X, Y, Z) integer ids 1..N, 0 elsewhere.

    >>> label_components(np.array([[[1, 1, 0, 1, 2, 3]]]), foreground_labels=(1, 2)).tolist()
    [[[1, 1, 0, 2, 3, 0]]]
    """
    return cc3d.connected_components(np.where(np.isin(label, foreground_labels), label, 0), connectivity=connectivity)


def refuse_existing(targets: list[Path], overwrite: bool) -> None:
    """Raise an InputError if files that would be written exist and `overwrite` is False."""
    existing = [target for target in targets if target.exists()]
    if existing and not overwrite:
        names = list_some([target.name for target in existing])
        raise InputError(
            f"{len(existing)} files in {existing[0].parent} already exist: {names}. Use --overwrite to replace them."
        )


@contextmanager
def writing_every(
    function: Callable, cases: list[RawCase], targets: Mapping[str, Path], num_processes: int, description: str
) -> Iterator[dict[str, Any]]:
    """Let a function read and write the files of each case; all written files appear when the block ends.

    Args:
        function: takes a case, and where to write its file for now.
        cases: the cases.
        targets: where the file of each case belongs.
        num_processes: worker processes.
        description: shown with the progress bar.

    Yields:
        What the function returned, by case. No file appears after an error in the block.

    Raises:
        InputError: lists what is wrong with the files that cannot be used or written; nothing is written.
    """
    with moved_together(target.parent for target in targets.values()) as unfinished:
        places = {case: unfinished[target.parent] / target.name for case, target in targets.items()}
        calls = {case.case: (case, places[case.case]) for case in cases}
        found, faults = try_cases(function, calls, num_processes, description)
        if faults:
            listed = list_lines(list(faults.values()))
            raise InputError(f"{len(faults)} of {len(cases)} files cannot be used:\n{listed}")
        yield found


def _write_label(dataset: RawDataset, reader: BaseReaderWriter, value: int, case: RawCase, target: Path) -> None:
    instances, properties = read_instances(case.instances, reader)
    write_instances(np.where(instances > 0, value, 0), target, reader, properties, dataset.file_ending)


def _write_components(
    dataset: RawDataset, reader: BaseReaderWriter, connectivity: Connectivity, case: RawCase, target: Path
) -> None:
    components, properties = read_components(case, dataset, reader, connectivity, dataset.unknown)
    write_instances(components, target, reader, properties, dataset.file_ending)
