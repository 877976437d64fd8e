"""nnU-Net's export of predictions, made to write instances while one of our networks predicts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import nnunetv2.inference.predict_from_raw_data as stock_prediction
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training

from nnunetv2_conflunet.inference import export

# The modules of nnU-Net that call functions by these names, and what the names mean while one of ours predicts.
EXPORT_NAME = "export_prediction_from_logits"
EXPORTING_MODULES = stock_prediction, stock_training
OTHERS = (
    (
        stock_prediction,
        "convert_predicted_logits_to_segmentation_with_correct_shape",
        export.convert_semantic_logits_to_segmentation,
    ),
    (stock_training, "resample_and_save", export.resample_and_save_semantic),
)


@contextmanager
def exporting_instances(export_case: Callable = export.export_prediction_with_instances) -> Iterator[None]:
    """While open, nnU-Net's loops over cases hand each prediction to our export functions.

    nnU-Net calls its export by name from the midst of its loops over cases and sends it to worker processes, where
    ours is found by its own name. Other networks must not predict in the same process meanwhile.

    Args:
        export_case: what writes the files of a case.
    """
    exports = *((module, EXPORT_NAME, export_case) for module in EXPORTING_MODULES), *OTHERS
    stock = [(module, name, getattr(module, name)) for module, name, _ in exports]
    for module, name, ours in exports:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, function in stock:
            setattr(module, name, function)
