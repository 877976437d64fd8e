"""Instance segmentation of lesions inside nnU-Net v2 (ConfLUNet, Wynen et al., ISBI 2024).

The names below are loaded on first use, so importing the package is fast and does not import torch.

Example:
    >>> import numpy as np
    >>> from nnunetv2_conflunet import instantiate_cc
    >>> instantiate_cc(np.array([[1, 1, 0, 1], [0, 0, 0, 1]]))
    array([[1, 1, 0, 2],
           [0, 0, 0, 2]], dtype=int32)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

# Rooms of the names that do not come from postprocessing.
_ROOMS = {
    "ConfLUNetPredictor": "inference",
    "center_offset_targets": "trainers.targets",
    "determine_postprocessing": "tuning",
    "evaluate_case": "evaluation",
    "nnUNetTrainerConfLUNet": "trainers",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'postprocessing')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
