"""The configuration ``3d_conflunet``: patch, batch and network of the paper in a dataset's plans.

"Paper" is Wynen et al., ISBI 2024; "code" is what its authors published with it
(https://github.com/maxencewynen/ConfLUNet, commit f463fcc of March 2024).
"""

from pathlib import Path
from typing import Any

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_json
from nnunetv2_conflunet.utilities.nnunet_folders import read_plans_of_nnunet

NAME = "3d_conflunet"
PARENT = "3d_fullres"
# Code: channels at full resolution and after each of the three poolings that make the paper's three levels.
FEATURES = (64, 128, 256, 512)
N_STAGES = len(FEATURES)


def paper_configuration() -> dict[str, Any]:
    """The configuration; everything that it does not name, such as the preprocessed data, is that of ``3d_fullres``."""
    return {
        "inherits_from": PARENT,
        # Paper.
        "patch_size": [96, 96, 96],
        # Code: two patches per step.
        "batch_size": 2,
        # Code: the Dice is computed per patch.
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            # Code: two 3x3x3 convolutions per level with bias, batch norm and ReLU.
            "arch_kwargs": {
                "n_stages": N_STAGES,
                "features_per_stage": list(FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * N_STAGES,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (N_STAGES - 1),
                "n_conv_per_stage": [2] * N_STAGES,
                "n_conv_per_stage_decoder": [2] * (N_STAGES - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
                "norm_op_kwargs": {},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.ReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def add_paper_configuration(plans_file: Path) -> bool:
    """Add the configuration to plans; their other content is unchanged.

    Args:
        plans_file: nnU-Net's plans of a preprocessed dataset.

    Returns:
        Whether the file was written; False if it already has the configuration.

    Raises:
        InputError: there are no plans, they have no ``3d_fullres``, their images are two-dimensional, or they have a
            different configuration of that name.
    """
    if not plans_file.is_file():
        raise InputError(f"{plans_file} does not exist. Run nnUNetv2_plan_and_preprocess first.")
    plans = read_plans_of_nnunet(plans_file)
    if plans["original_median_shape_after_transp"][0] == 1:
        raise InputError(f"{plans['dataset_name']} has two-dimensional images, and {NAME} has patches of 96 x 96 x 96.")
    configurations = plans["configurations"]
    if PARENT not in configurations:
        raise InputError(
            f"{plans_file} has no {PARENT}, whose preprocessed data {NAME} uses. Plan the dataset again without "
            f"limiting nnU-Net to other configurations; it has {', '.join(configurations)}."
        )
    configuration = paper_configuration()
    found = configurations.setdefault(NAME, configuration)
    if found is configuration:
        write_json(plans, plans_file)
        return True
    if found != configuration:
        raise InputError(
            f"{plans_file} has a configuration {NAME} that is not the paper's. Rename or remove it, then run again."
        )
    return False
