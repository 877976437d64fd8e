"""Prediction with center and offset heads, inside nnU-Net's own commands."""

from typing import TYPE_CHECKING

from nnunetv2_conflunet.utilities.lazy_names import load_on_first_use

__all__ = ["ConfLUNetPredictor", "InstancePrediction"]

if TYPE_CHECKING:
    from nnunetv2_conflunet.inference.predictor import ConfLUNetPredictor, InstancePrediction

# Worker processes that make instances of stored predictions need no torch.
__getattr__ = load_on_first_use(__name__, dict.fromkeys(__all__, "predictor"))
