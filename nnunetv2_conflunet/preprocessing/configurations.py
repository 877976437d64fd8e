"""The preprocessed configurations of a dataset for which instance maps can be made."""

from contextlib import AbstractContextManager
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.imageio.case_folder import read_dataset_json
from nnunetv2_conflunet.preprocessing.preprocessed import PreprocessedInstances, locked
from nnunetv2_conflunet.preprocessing.refusals import patch_spacing_mm, refuse_other_unit, refuse_unsupported
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, is_set, nnunet_folder, read_plans_of_nnunet


def plans_file(dataset: str, plans_name: str) -> Path:
    """The plans of a dataset in nnUNet_preprocessed.

    Raises:
        InputError: nnUNet_preprocessed is not set.
    """
    return nnunet_folder(PREPROCESSED) / dataset / f"{plans_name}.json"


def preprocessed_configurations(
    dataset: str, plans_name: str, names: list[str] | None = None
) -> tuple[list[PreprocessedInstances], list[str]]:
    """The configurations whose cases are preprocessed; of those that share a folder, one.

    Args:
        dataset: its name.
        plans_name: such as ``"nnUNetPlans"``.
        names: of the configurations; None: all that are preprocessed and supported.

    Returns:
        Their instance maps; and warnings about spacings that the default trainer would reject, though a custom trainer
        may have suitable settings in mm.

    Raises:
        InputError: the file holds no plans, those of another dataset, or a configuration that nnU-Net cannot use; for
            given names, missing plans, or a configuration that does not exist or is not supported.
    """
    if not is_set(PREPROCESSED) or not plans_file(dataset, plans_name).is_file():
        if names:
            raise InputError(f"{dataset} has no plans {plans_name} in nnUNet_preprocessed; plan and preprocess first.")
        return [], []
    file = plans_file(dataset, plans_name)
    plans = PlansManager(read_plans_of_nnunet(file))
    if plans.dataset_name != dataset:
        raise InputError(
            f"{file} belongs to {plans.dataset_name}, and nnU-Net looks for preprocessed data and models under that "
            f"name. Rename the folders of {dataset} back, or delete the one in nnUNet_preprocessed and repeat "
            "nnUNetv2_plan_and_preprocess."
        )
    dataset_json = read_dataset_json(file.with_name("dataset.json"))
    unknown = sorted(set(names or []) - set(plans.available_configurations))
    if unknown:
        raise InputError(f"{plans_name} has no configuration {unknown[0]}; it has {plans.available_configurations}.")
    found: dict[Path, PreprocessedInstances] = {}
    warnings = []
    for name in names or plans.available_configurations:
        prepared = _of_configuration(plans, name, dataset_json, file)
        try:
            refuse_unsupported(plans, name)
        except InputError:
            if names:
                raise
            continue
        if names or prepared.source_folder.is_dir():
            found.setdefault(prepared.folder, prepared)
            try:
                refuse_other_unit(plans, name)
            except InputError as error:
                warnings.append(str(error))
    return list(found.values()), warnings


def _of_configuration(plans: PlansManager, name: str, dataset_json: dict, file: Path) -> PreprocessedInstances:
    try:
        patch_spacing_mm(plans.get_configuration(name))
        return PreprocessedInstances(plans, name, dataset_json)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"nnU-Net cannot use the configuration {name} of {file}, with the dataset.json beside it "
            f"({type(error).__name__}: {error}). Correct or remove it, or repeat nnUNetv2_plan_and_preprocess."
        ) from error


def split_is_written(folder: str | Path) -> bool:
    """Whether nnU-Net's split into folds lies in the folder of a preprocessed dataset, and is complete."""
    try:
        read_json(_split(folder))
    except (FileNotFoundError, InputError):
        return False
    return True


def split_lock(folder: str | Path) -> AbstractContextManager[None]:
    """Lock the split of a preprocessed dataset, which its configurations share, see :func:`.locked`."""
    return locked(
        _split(folder),
        "nnU-Net's split into folds is missing and must be written next to it: let someone with write permission start "
        "the first training.",
    )


def _split(folder: str | Path) -> Path:
    return Path(folder) / "splits_final.json"
