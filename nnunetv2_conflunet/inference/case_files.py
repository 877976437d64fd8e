"""The files of one case: its instance map and its lesion table."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, write_instances
from nnunetv2_conflunet.imageio.file_axes import array_to_file_index
from nnunetv2_conflunet.inference.lesion_table import lesion_table
from nnunetv2_conflunet.postprocessing import Instantiation
from nnunetv2_conflunet.utilities.whole_files import is_whole

# Beside nnU-Net's segmentations: the instance maps, lesion tables and saved heads of a prediction.
INSTANCES_FOLDER = "instances"


def case_files(folder: str | os.PathLike, case: str, file_ending: str) -> tuple[Path, Path]:
    """The files of a case in the folder of instances: the map and the lesion table."""
    return Path(folder) / (case + file_ending), Path(folder) / f"{case}.csv"


def case_is_done(folder: str | os.PathLike, case: str, file_ending: str) -> bool:
    """Whether :func:`write_case` has finished a case: both files are there and whole."""
    return all(is_whole(path) for path in case_files(folder, case, file_ending))


def write_case(
    instantiation: Instantiation,
    folder: str | os.PathLike,
    case: str,
    properties: dict,
    writer: BaseReaderWriter,
    file_ending: str,
    *,
    labels: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    connectivity: int = 26,
) -> pd.DataFrame:
    """Write ``<case>.csv`` and then ``<case><file_ending>``, both whole or none of them.

    The map comes last, so that its existence means that the case is done.

    Args:
        instantiation: of the whole image, (X, Y, Z) in nnU-Net's axis order.
        folder: where to write, made when missing.
        case: the case's name.
        properties: what nnU-Net's reader returned for the image.
        writer: an instance of that reader/writer.
        file_ending: the dataset's, such as ``.nii.gz``.
        labels: (X, Y, Z) the semantic segmentation.
        probability: (X, Y, Z) of the foreground.
        connectivity: 6, 18 or 26 neighbours for the table's components.

    Returns:
        The lesion table.

    Raises:
        InputError: the format cannot hold the ids, arrays of different shapes, or a file cannot be written whole.
    """
    map_path, table_path = case_files(folder, case, file_ending)
    shape = instantiation.instances.shape
    table = lesion_table(
        instantiation.instances,
        Geometry.from_properties(shape, properties),
        labels=labels,
        probability=probability,
        center_scores=instantiation.center_score,
        connectivity=connectivity,
        file_index=array_to_file_index(shape, properties),
    )
    beside = {table_path: table.to_csv(index=False, float_format="%.7g", na_rep="NaN")}
    write_instances(instantiation.instances, map_path, writer, properties, file_ending, beside)
    return table
