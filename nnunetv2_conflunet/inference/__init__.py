"""Prediction with center and offset heads, inside nnU-Net's own commands."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["ConfLUNetPredictor", "InstancePrediction"]

if TYPE_CHECKING:
    from nnunetv2_conflunet.inference.predictor import ConfLUNetPredictor, InstancePrediction


def __getattr__(name: str) -> Any:
    # At first use, since worker processes that make instances of stored predictions need no torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.predictor"), name)
    globals()[name] = value
    return value
