"""Writing instance maps in which only the components that look like one lesion have an id of their own."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, write_instances
from nnunetv2_conflunet.imageio.instance_maps import LARGEST_ID
from nnunetv2_conflunet.imageio.unknown import declaring
from nnunetv2_conflunet.preprocessing.conversion import read_components, refuse_existing, writing_every
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.work_list import (
    FIRST_COLUMNS,
    WORK_LIST,
    component_table,
    how_many,
    joined,
    work_list,
)
from nnunetv2_conflunet.utilities.array_checks import Connectivity
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_json, write_texts
from nnunetv2_conflunet.utilities.writable import refuse_foreign, require_writable

# The id of unknown components, unless dataset.json declares another one or the format holds only smaller ones.
USUAL_ID = 2**16 - 1


def write_sorted_components(
    dataset: RawDataset,
    settings: ComponentSettings,
    num_processes: int,
    overwrite: bool,
    connectivity: Connectivity = 26,
) -> pd.DataFrame:
    """Write ``instancesTr``: connected components that look like one lesion keep their id, the others are unknown.

    The id of unknown components is declared in dataset.json if it is not yet, and ``unknown_components.csv`` beside it
    lists them, the largest first.

    Args:
        dataset: a dataset with labels.
        settings: what looks like one lesion.
        num_processes: worker processes.
        overwrite: replace existing instance maps.
        connectivity: 6, 18 or 26 in three dimensions; 4 or 8 in two.

    Returns:
        The components of all cases, see :func:`component_table`.

    Raises:
        InputError: a label is missing, cannot be read, or holds values that dataset.json does not declare; instance
            maps exist and `overwrite` is False; a folder cannot be written to; every component is unknown; or the
            format cannot hold the ids.
    """
    cases, list_file = dataset.require_labels(), dataset.folder / WORK_LIST
    targets = {case.case: case.instances for case in cases}
    refuse_existing(list(targets.values()), overwrite)
    require_writable(dataset.folder / "dataset.json", list_file, *targets.values())
    refuse_foreign(list_file, ",".join(FIRST_COLUMNS), "a list of unknown components by this command")
    unknown = unknown_id_of(dataset)
    declared = declaring(dataset.dataset_json, unknown)
    sort = partial(_sort_case, dataset, dataset.reader(), connectivity, settings, unknown)
    with writing_every(sort, cases, targets, num_processes, "Sorting components") as tables:
        table = joined(tables.values())
        if len(table) and not table["known"].any():
            raise InputError(
                f"No connected component of {dataset.folder.name} looks like one lesion: {how_many(table, False)} in "
                f"{len(cases)} cases are unknown, so there is nothing from which the heads could learn. Divide "
                "some by hand, or relax --component_max_diameter_mm, --component_min_solidity or "
                "--component_h_maxima_mm."
            )
        # Before the maps appear, so that none holds an id that is not declared.
        if not table["known"].all() and dataset.unknown is None:
            dataset.dataset_json = declared
            write_json(declared, dataset.folder / "dataset.json")
    write_texts({list_file: work_list(table)})
    return table


def unknown_id_of(dataset: RawDataset) -> int:
    """The id of unknown components: the declared one, else 65535, or the largest that the dataset's files hold."""
    return dataset.unknown or min(USUAL_ID, LARGEST_ID.get(dataset.file_ending.lower(), USUAL_ID))


def _sort_case(
    dataset: RawDataset,
    reader: BaseReaderWriter,
    connectivity: Connectivity,
    settings: ComponentSettings,
    unknown: int,
    case: RawCase,
    target: Path,
) -> pd.DataFrame:
    """Write the map of a case; returns its table of components."""
    components, properties = read_components(case, dataset, reader, connectivity, unknown)
    table = component_table(case.case, components, Geometry.from_properties(components.shape, properties), settings)
    not_known = table.loc[~table["known"], "component"]
    instances = np.where(np.isin(components, not_known), unknown, components)
    write_instances(instances, target, reader, properties, dataset.file_ending)
    return table
