"""What the trainer refuses, each with one sentence, before anything is written."""

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.preprocessing.raw_dataset import refuse_regions
from nnunetv2_conflunet.utilities.errors import InputError


def refuse_unsupported(plans: PlansManager, configuration: str, dataset_json: dict) -> None:
    """Raise an InputError for regions, the second stage of a cascade, and two-dimensional patches of volumes."""
    refuse_regions(plans.get_label_manager(dataset_json), plans.dataset_name)
    manager = plans.get_configuration(configuration)
    if manager.previous_stage_name is not None:
        raise InputError(
            f"{configuration} is the second stage of a cascade, whose place in nnU-Net the instance maps take; train "
            "3d_fullres or 3d_lowres instead."
        )
    n_slices = plans.original_median_shape_after_transp[0]
    if len(manager.patch_size) == 2 and n_slices > 1:
        raise InputError(
            f"{configuration} has two-dimensional patches, but the images of {plans.dataset_name} are volumes "
            f"({n_slices:.0f} slices), whose lesions have centers in three dimensions; train 3d_fullres instead."
        )
