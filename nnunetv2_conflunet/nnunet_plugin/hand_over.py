"""nnU-Net's predictor hands over to ours when the network has center and offset heads.

nnU-Net's commands, its trainer's final validation and users' scripts construct ``nnUNetPredictor`` by name. They find
the trainer of a model, and so import this package, before they predict. From then on the methods below look at the
network first; a network without heads is predicted by nnU-Net as before.
"""

from functools import wraps

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_conflunet.inference.predictor import ConfLUNetPredictor
from nnunetv2_conflunet.networks import heads_of
from nnunetv2_conflunet.utilities.errors import InputError

# Where prediction enters the predictor.
ENTRIES = (
    "predict_from_files",
    "predict_from_files_sequential",
    "predict_from_list_of_npy_arrays",
    "predict_from_data_iterator",
    "predict_single_npy_array",
    "predict_logits_from_preprocessed_data",
    "predict_sliding_window_return_logits",
)
MARK = "hands_over_to_conflunet"


def install_hand_over() -> None:
    """Wrap nnU-Net's entry methods, once a process. The stock methods read their own signature, which stays."""
    for name in ENTRIES:
        method = getattr(nnUNetPredictor, name)
        if not hasattr(method, MARK):
            setattr(nnUNetPredictor, name, _handing_over(method))


def _handing_over(method):
    @wraps(method)
    def entry(self, *args, **kwargs):
        if isinstance(self, ConfLUNetPredictor) or heads_of(self.network) is None:
            return method(self, *args, **kwargs)
        if type(self) is not nnUNetPredictor:
            raise InputError(
                f"{type(self).__name__} cannot predict a network with center and offset heads; derive it from "
                "nnunetv2_conflunet.inference.ConfLUNetPredictor."
            )
        self.__class__ = ConfLUNetPredictor
        return getattr(self, method.__name__)(*args, **kwargs)

    setattr(entry, MARK, True)
    return entry
