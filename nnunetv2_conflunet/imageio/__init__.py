"""Instance maps and their geometry, through nnU-Net's readers and writers."""

from nnunetv2_conflunet.imageio.geometry import Geometry
from nnunetv2_conflunet.imageio.instance_maps import read_instances, write_instances

__all__ = ["Geometry", "read_instances", "write_instances"]
