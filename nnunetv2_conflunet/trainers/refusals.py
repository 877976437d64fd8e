"""What the trainer refuses, each with one sentence, before anything is written."""

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_conflunet.networks import shape_difference
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


def refuse_other_channels(network: nn.Module, filename_or_checkpoint: dict | str) -> None:
    """Raise an InputError when the weights of a checkpoint have other shapes than the network's."""
    checkpoint = filename_or_checkpoint
    if isinstance(checkpoint, str):
        checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False)
    name = filename_or_checkpoint if isinstance(filename_or_checkpoint, str) else "the checkpoint"
    difference = shape_difference(network, checkpoint["network_weights"])
    if difference:
        raise InputError(
            f"{name} was saved by {checkpoint.get('trainer_name', 'another trainer')} and does not fit this network: "
            f"{difference}. To start from its weights, give it as -pretrained_weights."
        )
