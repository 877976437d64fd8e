"""Instances from a semantic prediction: center-offset, the baselines and the size filter."""

from nnunetv2_conflunet.postprocessing.baselines.functions import (
    instantiate_acls,
    instantiate_border_core,
    instantiate_cc,
    instantiate_watershed,
)
from nnunetv2_conflunet.postprocessing.pipeline import Instantiation, instantiate, instantiate_center_offset
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits, filter_small_instances, remove_small_instances

__all__ = [
    "Instantiation",
    "InstantiationSettings",
    "SizeLimits",
    "filter_small_instances",
    "instantiate",
    "instantiate_acls",
    "instantiate_border_core",
    "instantiate_cc",
    "instantiate_center_offset",
    "instantiate_watershed",
    "remove_small_instances",
]
