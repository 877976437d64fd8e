"""Labels from instances and instances from labels, for datasets that have only one of the two."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import declared_labels, read_instances, read_labels, write_instances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.utilities.array_checks import Connectivity
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.parallel import run_cases, try_cases


def write_labels_from_instances(dataset: RawDataset, num_processes: int, overwrite: bool) -> int:
    """Write ``labelsTr``: the label of the only foreground class where an instance is, 0 elsewhere.

    Returns:
        How many files were written.

    Raises:
        InputError: several foreground labels (ids do not say which), an ignore label, a missing instance map, labels
            that dataset.json has outside of the dataset's folder, or that exist and `overwrite` is False.
    """
    labels = dataset.label_manager()
    foreground = labels.foreground_labels
    if labels.has_ignore_label:
        raise InputError(
            f"{dataset.folder.name} has an ignore label; instance maps do not say where nobody labelled. Write "
            "labelsTr yourself."
        )
    if len(foreground) != 1:
        raise InputError(
            f"{dataset.folder.name} has {len(foreground)} foreground labels; instance maps do not say which label an "
            "instance has. Write labelsTr yourself."
        )
    cases = dataset.require_instances(list(dataset.training_cases()))
    _refuse_elsewhere(dataset, cases)
    _refuse_existing([i.label for i in cases], overwrite)
    reader = dataset.reader()
    _check_sources({i.case: (i.instances, reader) for i in cases}, read_instances, num_processes)
    arguments = [(i, reader, dataset.file_ending, int(foreground[0])) for i in cases]
    run_cases(_write_label, arguments, num_processes, "Writing labels")
    return len(cases)


def write_instances_from_labels(
    dataset: RawDataset, num_processes: int, overwrite: bool, connectivity: Connectivity = 26
) -> int:
    """Write ``instancesTr``: the connected components of each foreground label.

    Lesions that touch come out as one instance; correct these by hand before training.

    Args:
        connectivity: 6, 18 or 26 in three dimensions; 4 or 8 in two.

    Returns:
        How many files were written.

    Raises:
        InputError: a missing label, one that cannot be read or holds values that dataset.json does not declare, or
            instance maps that exist and `overwrite` is False.
    """
    labels = dataset.label_manager()
    foreground, declared = tuple(labels.foreground_labels), declared_labels(labels.label_dict)
    cases = list(dataset.training_cases().values())
    missing = sorted(i.case for i in cases if not i.label.is_file())
    if missing:
        raise InputError(f"{len(missing)} training cases of {dataset.folder} have no label: {list_some(missing)}.")
    _refuse_existing([i.instances for i in cases], overwrite)
    reader = dataset.reader()
    _check_sources({i.case: (i.label, reader, declared) for i in cases}, read_labels, num_processes)
    arguments = [(i, reader, dataset.file_ending, foreground, declared, connectivity) for i in cases]
    run_cases(_write_components, arguments, num_processes, "Writing instances")
    return len(cases)


def label_components(
    label: np.ndarray, foreground_labels: tuple[int, ...], connectivity: Connectivity = 26
) -> np.ndarray:
    """Connected components of each foreground label.

    Args:
        label: (X, Y, Z) integers; two-dimensional images have X = 1.
        foreground_labels: the labels to take; touching voxels of different labels are different instances.
        connectivity: as connected-components-3d has it: 6, 18 or 26. In one slice, 6 is 4 and the others are 8.

    Returns:
        (X, Y, Z) integer ids 1..N, 0 elsewhere.
    """
    return cc3d.connected_components(np.where(np.isin(label, foreground_labels), label, 0), connectivity=connectivity)


def _write_label(case: RawCase, reader: BaseReaderWriter, file_ending: str, label: int) -> None:
    instances, properties = read_instances(case.instances, reader)
    write_instances(np.where(instances > 0, label, 0), case.label, reader, properties, file_ending)


def _write_components(
    case: RawCase,
    reader: BaseReaderWriter,
    file_ending: str,
    foreground: tuple[int, ...],
    declared: tuple[int, ...],
    connectivity: Connectivity,
) -> None:
    label, properties = read_labels(case.label, reader, declared)
    instances = label_components(label, foreground, connectivity)
    write_instances(instances, case.instances, reader, properties, file_ending)


def _check_sources(sources: dict[str, tuple], read: Callable, num_processes: int) -> None:
    """Read every source before the first file is written.

    Args:
        sources: the arguments of `read` by case.
        read: raises an InputError for a file that cannot be used.

    Raises:
        InputError: names every file that cannot be used.
    """
    _, faults = try_cases(
        _read_only, {case: (read, *i) for case, i in sources.items()}, num_processes, "Reading sources"
    )
    if faults:
        listed = list_lines(list(faults.values()))
        raise InputError(f"{len(faults)} of {len(sources)} files cannot be used:\n{listed}")


def _read_only(read: Callable, *arguments: Any) -> None:
    """Read without the array's way back to the process that asks."""
    read(*arguments)


def _refuse_elsewhere(dataset: RawDataset, cases: list[RawCase]) -> None:
    """A dataset.json from someone else must not choose which files of this machine are written."""
    folder = os.path.abspath(dataset.folder)
    elsewhere = [str(i.label) for i in cases if not Path(os.path.abspath(i.label)).is_relative_to(folder)]
    if elsewhere:
        raise InputError(
            f"dataset.json of {dataset.folder.name} has labels outside of its folder: {list_some(elsewhere, 3)}. Only "
            "labels within it are written; write the others yourself."
        )


def _refuse_existing(files: list[Path], overwrite: bool) -> None:
    existing = [i for i in files if i.exists()]
    if existing and not overwrite:
        raise InputError(
            f"{len(existing)} files in {existing[0].parent} exist already: {list_some([i.name for i in existing])}. "
            "Give --overwrite to replace them."
        )
