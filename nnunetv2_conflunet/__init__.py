"""Instance segmentation of lesions inside nnU-Net v2 (ConfLUNet, Wynen et al., ISBI 2024).

The names below are loaded on first use, so importing the package is fast and does not import torch.

Example:
    >>> import numpy as np
    >>> from nnunetv2_conflunet import instantiate_cc
    >>> instantiate_cc(np.array([[1, 1, 0, 1], [0, 0, 0, 1]]))
    array([[1, 1, 0, 2],
           [0, 0, 0, 2]], dtype=int32)
"""

from typing import TYPE_CHECKING

from nnunetv2_conflunet.utilities.lazy_names import load_on_first_use

__version__ = "0.1.0"

__all__ = [
    "ConfLUNetPredictor",
    "InstantiationSettings",
    "center_offset_targets",
    "determine_postprocessing",
    "evaluate_case",
    "instantiate",
    "instantiate_acls",
    "instantiate_cc",
    "instantiate_center_offset",
    "nnUNetTrainerConfLUNet",
    "remove_small_instances",
]

if TYPE_CHECKING:
    from nnunetv2_conflunet.evaluation import evaluate_case
    from nnunetv2_conflunet.inference import ConfLUNetPredictor
    from nnunetv2_conflunet.postprocessing import (
        InstantiationSettings,
        instantiate,
        instantiate_acls,
        instantiate_cc,
        instantiate_center_offset,
        remove_small_instances,
    )
    from nnunetv2_conflunet.trainers import nnUNetTrainerConfLUNet
    from nnunetv2_conflunet.trainers.targets import center_offset_targets
    from nnunetv2_conflunet.tuning import determine_postprocessing

_ROOMS = {
    **dict.fromkeys(__all__, "postprocessing"),
    "ConfLUNetPredictor": "inference",
    "center_offset_targets": "trainers.targets",
    "determine_postprocessing": "tuning",
    "evaluate_case": "evaluation",
    "nnUNetTrainerConfLUNet": "trainers",
}
__getattr__ = load_on_first_use(__name__, _ROOMS)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
