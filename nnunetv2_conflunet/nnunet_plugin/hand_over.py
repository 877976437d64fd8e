"""nnU-Net's predictor and its export of predictions hand over to ours when the network has center and offset heads.

nnU-Net's commands, its trainer's final validation and users' scripts construct ``nnUNetPredictor`` by name. Before
they predict, they look up the model's trainer and thereby import this package. From then on the methods below check the
network first; networks without heads are predicted by nnU-Net as before.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import nnunetv2.inference.predict_from_raw_data as stock_prediction
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
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
# The commands whose only work is the prediction.
COMMANDS = ("nnUNetv2_predict", "nnUNetv2_predict_from_modelfolder")
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
        try:
            return getattr(self, method.__name__)(*args, **kwargs)
        except InputError as error:
            if Path(sys.argv[0]).stem not in COMMANDS:
                raise
            # As by our own commands, without the traceback.
            sys.exit(f"Error: {error}")
        finally:
            # The next model that it is given may have no heads.
            self.__class__ = nnUNetPredictor

    setattr(entry, MARK, True)
    return entry


def replaced_exports(
    export_case: Callable, convert: Callable, resample_and_save: Callable
) -> AbstractContextManager[None]:
    """Within this context, nnU-Net's loops over cases call these functions instead of its own.

    nnU-Net looks its export functions up by name in its loops over cases and pickles them for worker processes. No
    other network may predict in the same process in the meantime.

    Args:
        export_case: writes the files of a case; for ``export_prediction_from_logits``.
        convert: for ``convert_predicted_logits_to_segmentation_with_correct_shape``, which returns the segmentation.
        resample_and_save: for the function of that name, which writes the input of a cascade's next stage.
    """
    return _replaced(
        (stock_prediction, "export_prediction_from_logits", export_case),
        (stock_training, "export_prediction_from_logits", export_case),
        (stock_prediction, "convert_predicted_logits_to_segmentation_with_correct_shape", convert),
        (stock_training, "resample_and_save", resample_and_save),
    )


def replaced_loader(loader: type[nnUNetDataLoader]) -> AbstractContextManager[None]:
    """Within this context nnU-Net's trainer makes loaders of this class.

    Trainers that make loaders by themselves use theirs.
    """
    return _replaced((stock_training, "nnUNetDataLoader", loader))


@contextmanager
def _replaced(*replacements: tuple[ModuleType, str, Any]) -> Iterator[None]:
    """Within this context, modules of nnU-Net have ours under these names."""
    stock = [(module, name, getattr(module, name)) for module, name, _ in replacements]
    for module, name, ours in replacements:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, theirs in stock:
            setattr(module, name, theirs)
