"""Instances from a semantic prediction: center-offset, connected components and ACLS, size filter, lesion table."""

from nnunetv2_conflunet.postprocessing.pipeline import (
    Instantiation,
    instantiate,
    instantiate_acls,
    instantiate_cc,
    instantiate_center_offset,
)
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import SizeLimits, filter_small_instances, remove_small_instances

__all__ = [
    "Instantiation",
    "InstantiationSettings",
    "SizeLimits",
    "filter_small_instances",
    "instantiate",
    "instantiate_acls",
    "instantiate_cc",
    "instantiate_center_offset",
    "remove_small_instances",
]
