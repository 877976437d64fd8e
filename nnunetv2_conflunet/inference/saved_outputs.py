"""Saved outputs of networks for cases that are spread over several predictions, such as those of all folds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.inference.model_settings import SETTINGS_KEY, ModelSettings
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.pipeline import UNFILTERED
from nnunetv2_conflunet.utilities.errors import InputError, list_some


@dataclass(frozen=True)
class SavedOutputs:
    """Predictions with what a method needs: probabilities for ``acls``, heads for ``center_offset``.

    Attributes:
        method: the method.
        predictions: the first one that has a case counts.
    """

    method: str
    predictions: tuple[PredictionFolder, ...]

    @classmethod
    def open(cls, method: str, folders: Sequence[Path]) -> "SavedOutputs":
        """Predictions in these folders.

        Raises:
            InputError: a folder holds no prediction with what the method needs.
        """
        opened = cls(method, tuple(map(PredictionFolder.open, folders)))
        for prediction in opened.predictions:
            if not prediction.has_saved(method):
                trainer = "" if method == "acls" else " and a ConfLUNet trainer"
                raise InputError(
                    f"{prediction.folder} holds no {opened._what}; predict with --save_probabilities{trainer}, or give "
                    "the original prediction if this one was postprocessed or ensembled."
                )
        return opened

    def settings(self) -> InstantiationSettings:
        """How the trainer of the model makes instances, without size filter and without what validation cases taught.

        Raises:
            InputError: a prediction has no settings of a model, or they are of models with different ones.
        """
        for prediction in self.predictions:
            if SETTINGS_KEY not in prediction.plans:
                raise InputError(
                    f"{prediction.folder} has no plans.json of a ConfLUNet model, which says how its trainer makes "
                    "instances. Give the output of nnUNetv2_predict, or the validation folder of a fold where it is."
                )
        first, *others = [ModelSettings.from_plans(prediction.plans).untuned for prediction in self.predictions]
        if any(other != first for other in others):
            folders = list_some([str(prediction.folder) for prediction in self.predictions], 3)
            raise InputError(f"{folders} are of models with different settings; give predictions of one model.")
        return replace(first, method=self.method, **asdict(UNFILTERED.limits), min_confidence=0.0, top_k=None)

    def of_case(self, case: str, map_file: Path, grid: Geometry) -> dict[str, np.ndarray]:
        """What the method needs of a case, as arguments of :func:`.instantiate`.

        Args:
            case: its name.
            map_file: its instance map.
            grid: of that map.

        Raises:
            InputError: no prediction has it, its file is broken, or it is on another grid than the map.
        """
        found = (prediction for prediction in self.predictions if prediction.saved_file(case, self.method).is_file())
        if (prediction := next(found, None)) is None:
            folders = list_some([str(prediction.folder) for prediction in self.predictions], 3)
            raise InputError(
                f"{case} has no {self._what} in {folders}. Predict it with --save_probabilities, or validate its "
                "fold with nnUNetv2_train ... --val --npz."
            )
        prediction.read_segmentation_on_grid_of(case, map_file, grid)
        if self.method == "center_offset":
            return vars(prediction.read_heads(case))
        return {"probability": prediction.read_probability(case, grid.shape)}

    @property
    def _what(self) -> str:
        return "probabilities" if self.method == "acls" else "heads"
