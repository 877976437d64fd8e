"""nnU-Net's export of predictions, replaced while one of our networks predicts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import nnunetv2.inference.predict_from_raw_data as stock_prediction
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training


@contextmanager
def replaced_exports(export_case: Callable, convert: Callable, resample_and_save: Callable) -> Iterator[None]:
    """Within this context, nnU-Net's loops over cases call these functions instead of its own.

    nnU-Net looks its export functions up by name in its loops over cases and pickles them for worker processes. No
    other network may predict in the same process in the meantime.

    Args:
        export_case: writes the files of a case; for ``export_prediction_from_logits``.
        convert: for ``convert_predicted_logits_to_segmentation_with_correct_shape``, which returns the segmentation.
        resample_and_save: for the function of that name, which writes the input of a cascade's next stage.
    """
    exports = (
        (stock_prediction, "export_prediction_from_logits", export_case),
        (stock_training, "export_prediction_from_logits", export_case),
        (stock_prediction, "convert_predicted_logits_to_segmentation_with_correct_shape", convert),
        (stock_training, "resample_and_save", resample_and_save),
    )
    stock = [(module, name, getattr(module, name)) for module, name, _ in exports]
    for module, name, ours in exports:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, function in stock:
            setattr(module, name, function)
