"""Foreground probabilities of cases that are spread over several predictions, such as those of all folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.utilities.errors import InputError, list_some


@dataclass(frozen=True)
class Probabilities:
    """Predictions with saved probabilities.

    Attributes:
        predictions: the first one that has a case counts.
    """

    predictions: tuple[PredictionFolder, ...]

    @classmethod
    def open(cls, folders: Sequence[Path]) -> "Probabilities":
        """Predictions in these folders.

        Raises:
            InputError: a folder holds no prediction with probabilities.
        """
        predictions = tuple(map(PredictionFolder.open, folders))
        for prediction in predictions:
            prediction.check_method("acls")
        return cls(predictions)

    def of_case(self, case: str) -> np.ndarray:
        """The foreground probability of a case, (X, Y, Z).

        Raises:
            InputError: no prediction has it, or its file is broken.
        """
        found = (prediction for prediction in self.predictions if prediction.probability_file(case).is_file())
        if (prediction := next(found, None)) is None:
            folders = list_some([str(prediction.folder) for prediction in self.predictions], 3)
            raise InputError(
                f"{case} has no probabilities in {folders}. Predict it with --save_probabilities, or validate its fold "
                "with nnUNetv2_train ... --val --npz."
            )
        probability = prediction.read_case(case, "acls").probability
        assert probability is not None
        return probability
