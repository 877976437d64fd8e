"""nnU-Net's folders, as its environment variables name them, its datasets and their plans."""

import os
from pathlib import Path
from typing import Any

from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
# Folder of the instance maps in a raw dataset, next to nnU-Net's imagesTr and labelsTr.
TRAINING_INSTANCES = "instancesTr"
# Folder of instance maps, lesion tables and saved heads, next to nnU-Net's segmentations.
INSTANCES_FOLDER = "instances"
# What this package reads in nnU-Net's plans, with its type in JSON.
IN_PLANS = {
    "dataset_name": str,
    "image_reader_writer": str,
    "original_median_shape_after_transp": list,
    "transpose_forward": list,
    "configurations": dict,
}


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


def read_plans_of_nnunet(file: Path) -> dict[str, Any]:
    """What the plans of a dataset or of a model hold.

    Raises:
        InputError: the file is not JSON, or holds something else.
    """
    plans = read_json(file)
    found = plans if isinstance(plans, dict) else {}
    if lacking := [name for name, of_type in IN_PLANS.items() if not isinstance(found.get(name), of_type)]:
        raise InputError(
            f"{file} is not a file of plans by nnU-Net: it has no {list_some(lacking)}. Repeat "
            "nnUNetv2_plan_and_preprocess, or copy the plans from where they are complete."
        )
    return plans
