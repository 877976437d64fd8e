"""Settings of the instantiation chosen on the cross-validation of a training."""

from nnunetv2_conflunet.tuning.determine import TuningSettings, determine_postprocessing
from nnunetv2_conflunet.tuning.search import Grid

__all__ = ["Grid", "TuningSettings", "determine_postprocessing"]
