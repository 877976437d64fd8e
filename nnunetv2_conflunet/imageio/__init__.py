"""Instance maps and their geometry, through nnU-Net's readers and writers."""

from nnunetv2_conflunet.imageio.case_folder import CaseFolder, find_reader
from nnunetv2_conflunet.imageio.geometry import Geometry, refuse_other_grid
from nnunetv2_conflunet.imageio.instance_maps import write_instances
from nnunetv2_conflunet.imageio.reading import declared_labels, read_instances, read_labels

__all__ = [
    "CaseFolder",
    "Geometry",
    "declared_labels",
    "find_reader",
    "read_instances",
    "read_labels",
    "refuse_other_grid",
    "write_instances",
]
