"""What a model keeps in nnU-Net's plans, which travel with it: how its instances are made, and what tuning changed."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json

# The plans.json of a model folder is part of what nnUNetv2_export_model_to_zip packs.
SETTINGS_KEY = "conflunet"
INSTANTIATION_KEY = "instantiation"
# Beside a tuned choice the plans keep what the trainer had chosen, so that tuning can start from it again.
UNTUNED_KEY = "instantiation_before_tuning"
READING_ATTEMPTS, READING_PAUSE_S = 30, 0.1


@dataclass(frozen=True)
class ModelSettings:
    """The entry ``"conflunet"`` of a model's plans.

    Attributes:
        stored: the entry as JSON has it: ``instantiation`` and, after tuning, ``instantiation_before_tuning``, in the
            form of :meth:`.InstantiationSettings.to_dict` or of an earlier version that had fewer settings; and what
            the trainer keeps for the record, such as ``alpha``. Read when it is asked for.

    >>> trained = ModelSettings.of_trainer(InstantiationSettings(), alpha=10.0)
    >>> tuned = trained.tuned_to(InstantiationSettings(window_mm=5.0))
    >>> tuned.put_into(plans := {})
    >>> ModelSettings.from_plans(plans).instantiation.window_mm, tuned.untuned.window_mm
    (5.0, 3.0)
    """

    stored: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_trainer(cls, instantiation: InstantiationSettings, **training: float) -> "ModelSettings":
        """Those of a new training, with the values of the trainer that are kept for the record."""
        return cls({**training, INSTANTIATION_KEY: instantiation.to_dict()})

    @classmethod
    def from_plans(cls, plans: dict[str, Any]) -> "ModelSettings":
        """Those in a model's plans; empty for plans of another trainer."""
        return cls(plans.get(SETTINGS_KEY, {}))

    @classmethod
    def from_model(cls, plans_file: str | os.PathLike) -> "ModelSettings":
        """Those of a model whose folds may be starting now; empty where there is no plans.json.

        Raises:
            InputError: the file is no JSON.
        """
        if not Path(plans_file).is_file():
            return cls()
        # nnU-Net writes plans.json anew at the start of every fold, and not at once.
        for _ in range(READING_ATTEMPTS - 1):
            try:
                return cls.from_plans(read_json(plans_file))
            except InputError:
                time.sleep(READING_PAUSE_S)
        return cls.from_plans(read_json(plans_file))

    def put_into(self, plans: dict[str, Any]) -> None:
        """Replace the entry of plans."""
        plans[SETTINGS_KEY] = self.stored

    @property
    def instantiation(self) -> InstantiationSettings:
        """How prediction makes instances; what is not stored has its default.

        Raises:
            InputError: an unknown key, or a value that is not possible.
        """
        return InstantiationSettings.from_dict(self.stored.get(INSTANTIATION_KEY, {}))

    @property
    def untuned(self) -> InstantiationSettings:
        """How the trainer wants instances made, whether they were tuned since or not.

        Raises:
            InputError: as for :attr:`instantiation`.
        """
        return InstantiationSettings.from_dict(self.stored.get(UNTUNED_KEY, self.stored.get(INSTANTIATION_KEY, {})))

    @property
    def is_tuned(self) -> bool:
        """Whether tuning has changed what the trainer wanted."""
        return UNTUNED_KEY in self.stored

    def tuned_to(self, instantiation: InstantiationSettings) -> "ModelSettings":
        """With a choice for prediction to read; the trainer's own takes an earlier choice away."""
        untuned = self.untuned
        stored = self.stored | {INSTANTIATION_KEY: instantiation.to_dict(), UNTUNED_KEY: untuned.to_dict()}
        if instantiation == untuned:
            del stored[UNTUNED_KEY]
        return ModelSettings(stored)

    def keeping_tuning_of(self, before: "ModelSettings") -> "ModelSettings":
        """A trainer's settings with the instantiation that was tuned for the same model before, if there is one.

        A choice that was tuned from other settings than the trainer has now is left out: the trainer was changed since.
        """
        if not before.is_tuned or before._complete(UNTUNED_KEY) != self.stored[INSTANTIATION_KEY]:
            return self
        tuned = {INSTANTIATION_KEY: before._complete(INSTANTIATION_KEY), UNTUNED_KEY: self.stored[INSTANTIATION_KEY]}
        return ModelSettings(self.stored | tuned)

    def differences(self, before: "ModelSettings") -> list[str]:
        """Each setting of the instantiation that is another than `before`, as in ``"window_mm 5.0, not 3.0"``."""
        now, then = self._complete(INSTANTIATION_KEY), before._complete(INSTANTIATION_KEY)
        return [f"{name} {value}, not {then[name]}" for name, value in now.items() if value != then[name]]

    def _complete(self, key: str) -> dict[str, Any]:
        """A stored instantiation with the defaults of what an earlier version did not have."""
        return InstantiationSettings().to_dict() | self.stored.get(key, {})
