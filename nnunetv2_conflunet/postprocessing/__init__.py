"""Instances from a semantic prediction: center-offset, connected components and ACLS, size filter, lesion table."""

from nnunetv2_conflunet.postprocessing.lesion_table import lesion_table
from nnunetv2_conflunet.postprocessing.methods import instantiate_acls, instantiate_cc, instantiate_center_offset
from nnunetv2_conflunet.postprocessing.outputs import case_is_done, write_case
from nnunetv2_conflunet.postprocessing.pipeline import Instantiation, instantiate
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import filter_small_instances, remove_small_instances

__all__ = [
    "Instantiation",
    "InstantiationSettings",
    "case_is_done",
    "filter_small_instances",
    "instantiate",
    "instantiate_acls",
    "instantiate_cc",
    "instantiate_center_offset",
    "lesion_table",
    "remove_small_instances",
    "write_case",
]
