"""nnU-Net's folders and datasets, as its environment variables and commands name them."""

import os
from pathlib import Path

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_conflunet.utilities.errors import InputError, list_some

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
# Where a raw dataset has its instance maps, beside nnU-Net's imagesTr and labelsTr.
TRAINING_INSTANCES = "instancesTr"


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
    """The name of a dataset that is given by name or id.

    Raises:
        InputError: none of nnU-Net's folders has it, or they have several of this id.
    """
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raw = nnunet_folder(RAW)
        found = list_some(sorted(folder.name for folder in raw.glob("Dataset*"))) or "no dataset"
        # What follows are nnU-Net's variables, over many lines.
        reason = str(error).split(". ")[0]
        raise InputError(f"{reason}. {RAW} ({raw}) holds {found}.") from error
