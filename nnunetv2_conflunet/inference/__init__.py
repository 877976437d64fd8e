"""Prediction with center and offset heads, inside nnU-Net's own commands."""

from nnunetv2_conflunet.inference.predictor import ConfLUNetPredictor, InstancePrediction

__all__ = ["ConfLUNetPredictor", "InstancePrediction"]
