"""nnU-Net's predictor hands over to ours when the network has center and offset heads.

nnU-Net's commands, its trainer's final validation and users' scripts construct ``nnUNetPredictor`` by name. Before
they predict, they look up the model's trainer and thereby import this package. From then on the methods below check the
network first; networks without heads are predicted by nnU-Net as before.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunetv2_conflunet.utilities.errors import InputError

# The methods by which prediction enters the predictor.
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


def install(predictor: type[nnUNetPredictor], heads_of: Callable[[nn.Module | None], object | None]) -> None:
    """Wrap nnU-Net's entry methods, once per process. Importing this package changes nothing else in nnU-Net.

    Args:
        predictor: takes over from ``nnUNetPredictor``.
        heads_of: returns None for a network that nnU-Net predicts itself.
    """
    for name in ENTRIES:
        method = getattr(nnUNetPredictor, name)
        if not hasattr(method, MARK):
            setattr(nnUNetPredictor, name, _handing_over(method, predictor, heads_of))


def _handing_over(method: Callable, predictor: type[nnUNetPredictor], heads_of: Callable) -> Callable:
    # nnU-Net's methods inspect their own signature, which ``wraps`` preserves.
    @wraps(method)
    def entry(self: nnUNetPredictor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, predictor) or heads_of(self.network) is None:
            return method(self, *args, **kwargs)
        if type(self) is not nnUNetPredictor:
            raise InputError(
                f"{type(self).__name__} cannot predict a network with center and offset heads; derive it from "
                "nnunetv2_conflunet.inference.ConfLUNetPredictor."
            )
        self.__class__ = predictor
        return getattr(self, method.__name__)(*args, **kwargs)

    setattr(entry, MARK, True)
    return entry
