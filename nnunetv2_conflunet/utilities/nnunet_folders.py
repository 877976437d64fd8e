"""nnU-Net's folders, as its environment variables name them, and its datasets."""

import os
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_conflunet.utilities.errors import InputError, list_some

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
# Folder of the instance maps in a raw dataset, next to nnU-Net's imagesTr and labelsTr.
TRAINING_INSTANCES = "instancesTr"
# Folder of instance maps, lesion tables and saved heads, next to nnU-Net's segmentations.
INSTANCES_FOLDER = "instances"


def nnunet_folder(variable: str, remedy: str = "export it as nnU-Net's documentation says.") -> Path:
    """The folder that one of nnU-Net's environment variables names.

    Raises:
        InputError: it is not set, or empty.
    """
    if not is_set(variable):
        raise InputError(f"{variable} is not set; {remedy}")
    return Path(os.environ[variable])


def is_set(variable: str) -> bool:
    """Whether one of nnU-Net's environment variables names a folder."""
    return bool(os.environ.get(variable))


def dataset_name(dataset: str) -> str:
    """The name of a dataset given by name or id.

    Raises:
        InputError: it is in none of nnU-Net's folders, or they hold several datasets with this id.
    """
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raw = nnunet_folder(RAW)
        found = list_some(sorted(folder.name for folder in raw.glob("Dataset*"))) or "no dataset"
        # After this sentence, nnU-Net lists its variables over many lines.
        reason = str(error).split(". ")[0]
        raise InputError(f"{reason}. {RAW} ({raw}) holds {found}.") from error
