"""nnU-Net's export of predictions, made to write instances while one of our networks predicts."""

from collections.abc import Iterator
from contextlib import contextmanager

import nnunetv2.inference.predict_from_raw_data as stock_prediction
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training

from nnunetv2_conflunet.inference import export

# The modules of nnU-Net that call export functions by these names, and what the names mean while one of ours predicts.
EXPORTS = (
    (stock_prediction, "export_prediction_from_logits", export.export_prediction_with_instances),
    (
        stock_prediction,
        "convert_predicted_logits_to_segmentation_with_correct_shape",
        export.convert_semantic_logits_to_segmentation,
    ),
    (stock_training, "export_prediction_from_logits", export.export_prediction_with_instances),
    (stock_training, "resample_and_save", export.resample_and_save_semantic),
)


@contextmanager
def exporting_instances() -> Iterator[None]:
    """While open, nnU-Net's loops over cases hand each prediction to our export functions.

    nnU-Net calls its export by name from the midst of its loops over cases and sends it to worker processes, where
    ours is found by its own name. Other networks must not predict in the same process meanwhile.
    """
    stock = [(module, name, getattr(module, name)) for module, name, _ in EXPORTS]
    for module, name, ours in EXPORTS:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, function in stock:
            setattr(module, name, function)
