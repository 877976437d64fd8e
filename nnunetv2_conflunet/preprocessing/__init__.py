"""From ``instancesTr`` to the preprocessed grid."""

from nnunetv2_conflunet.preprocessing.check_instances import InstanceCheck
from nnunetv2_conflunet.preprocessing.preprocessed import PreparedCase, PreprocessedInstances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.preprocessing.resampling import to_preprocessed_grid

__all__ = ["InstanceCheck", "PreparedCase", "PreprocessedInstances", "RawCase", "RawDataset", "to_preprocessed_grid"]
