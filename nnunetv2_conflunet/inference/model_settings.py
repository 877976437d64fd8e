"""A model's settings in nnU-Net's plans, which travel with it: how instances are made, and what tuning changed."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json

# nnUNetv2_export_model_to_zip includes the plans.json of a model folder.
SETTINGS_KEY = "conflunet"
INSTANTIATION_KEY = "instantiation"
# Next to tuned settings the plans keep those of the trainer, from which tuning can start again.
UNTUNED_KEY = "instantiation_before_tuning"
# Where the final validation learned them, the folds that it learned on.
LEARNED_KEY = "learned_on_folds"
READING_ATTEMPTS, READING_PAUSE_S = 30, 0.1


class DamagedPlans(InputError):
    """A plans.json is not JSON, as after a power cut while nnU-Net wrote it."""


def read_plans(plans_file: str | os.PathLike) -> dict[str, Any]:
    """The plans of a model whose folds may be starting now.

    Raises:
        DamagedPlans: the file is not JSON.
    """
    # nnU-Net rewrites plans.json at the start of every fold, and not atomically.
    for _ in range(READING_ATTEMPTS - 1):
        try:
            return read_json(plans_file)
        except InputError:
            time.sleep(READING_PAUSE_S)
    try:
        return read_json(plans_file)
    except InputError as error:
        raise DamagedPlans(str(error)) from error


def plans_lock(model_folder: str | os.PathLike) -> FileLock:
    """The lock that is held while the plans.json of a model is read, changed and written.

    Its empty file stays: if it were removed, a fold that waits for it and one that creates it anew would both hold it.
    nnUNetv2_export_model_to_zip leaves it out.
    """
    return FileLock(Path(model_folder) / ".plans.lock", mode=0o666)


@dataclass(frozen=True)
class ModelSettings:
    """The entry ``"conflunet"`` of a model's plans.

    Attributes:
        stored: the entry as in JSON: ``instantiation`` and, after tuning, ``instantiation_before_tuning``, in the form
            of :meth:`.InstantiationSettings.to_dict` or of an earlier version with fewer settings;
            ``learned_on_folds`` where the final validation did the tuning; and values that the trainer records, such
            as ``alpha``. Parsed on access.

    >>> trained = ModelSettings.of_trainer(InstantiationSettings(), alpha=10.0)
    >>> tuned = trained.tuned_to(InstantiationSettings(window_mm=5.0))
    >>> tuned.put_into(plans := {})
    >>> ModelSettings.from_plans(plans).instantiation.window_mm, tuned.untuned.window_mm
    (5.0, 3.0)
    """

    stored: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_trainer(cls, instantiation: InstantiationSettings, **training: float) -> "ModelSettings":
        """The settings of a new training, with the values that the trainer records."""
        return cls({**training, INSTANTIATION_KEY: instantiation.to_dict()})

    @classmethod
    def from_plans(cls, plans: dict[str, Any]) -> "ModelSettings":
        """The settings in a model's plans; empty for plans of another trainer.

        Raises:
            InputError: the plans, or the entry, are no dictionary.
        """
        stored = plans.get(SETTINGS_KEY, {}) if isinstance(plans, dict) else plans
        if not isinstance(stored, dict):
            raise InputError(f"plans.json cannot be used: it, or its entry '{SETTINGS_KEY}', is no dictionary.")
        return cls(stored)

    @classmethod
    def from_model(cls, plans_file: str | os.PathLike) -> "ModelSettings":
        """The settings of a model whose folds may be starting now; empty without a plans.json.

        Raises:
            DamagedPlans: the file is not JSON.
            InputError: as for :meth:`from_plans`.
        """
        if not Path(plans_file).is_file():
            return cls()
        return cls.from_plans(read_plans(plans_file))

    def put_into(self, plans: dict[str, Any]) -> None:
        """Replace the entry in plans."""
        plans[SETTINGS_KEY] = self.stored

    @property
    def instantiation(self) -> InstantiationSettings:
        """How prediction makes instances; settings that are not stored take their defaults.

        Raises:
            InputError: an unknown key or an invalid value.
        """
        return self._parsed(self.stored.get(INSTANTIATION_KEY, {}))

    @property
    def untuned(self) -> InstantiationSettings:
        """The trainer's own settings, whether or not they were tuned since.

        Raises:
            InputError: as for :attr:`instantiation`.
        """
        return self._parsed(self.stored.get(UNTUNED_KEY, self.stored.get(INSTANTIATION_KEY, {})))

    @property
    def is_tuned(self) -> bool:
        """Whether tuning has changed the trainer's settings."""
        return UNTUNED_KEY in self.stored

    def tuned_to(self, instantiation: InstantiationSettings) -> "ModelSettings":
        """These settings with a tuned instantiation; the trainer's own instantiation undoes the tuning."""
        untuned = self.untuned
        stored = self.stored | {INSTANTIATION_KEY: instantiation.to_dict(), UNTUNED_KEY: untuned.to_dict()}
        stored.pop(LEARNED_KEY, None)
        if instantiation == untuned:
            del stored[UNTUNED_KEY]
        return ModelSettings(stored)

    @property
    def learned_on(self) -> list[str]:
        """The folds on which the final validation learned when to merge; empty where a user tuned, or nobody."""
        return self.stored.get(LEARNED_KEY, [])

    def unlearned(self) -> "ModelSettings":
        """These settings without what the final validation has learned; a user's tuning stays."""
        return self.tuned_to(self.untuned) if self.learned_on else self

    def learned(self, instantiation: InstantiationSettings, folds: list[str]) -> "ModelSettings":
        """As :meth:`tuned_to`, for what the final validation of some folds learned."""
        return ModelSettings(self.tuned_to(instantiation).stored | {LEARNED_KEY: folds})

    def keeping_tuning_of(self, before: "ModelSettings") -> "ModelSettings":
        """A trainer's settings with the instantiation tuned earlier for the same model, if there is one.

        If it was tuned from settings other than the trainer's current ones, the trainer has changed since and the
        tuning is dropped.
        """
        if not before.is_tuned or before._complete(UNTUNED_KEY) != self.stored[INSTANTIATION_KEY]:
            return self
        tuned = {INSTANTIATION_KEY: before._complete(INSTANTIATION_KEY), UNTUNED_KEY: self.stored[INSTANTIATION_KEY]}
        learned = {LEARNED_KEY: before.learned_on} if before.learned_on else {}
        return ModelSettings(self.stored | tuned | learned)

    def differences(self, before: "ModelSettings") -> list[str]:
        """Each setting of the instantiation that differs from `before`, as in ``"window_mm 5.0, not 3.0"``."""
        now, then = self._complete(INSTANTIATION_KEY), before._complete(INSTANTIATION_KEY)
        differing = [name for name, value in now.items() if value != then[name]]
        # The weights of a rule would fill the line.
        words = {name: f"{name} {now[name]}, not {then[name]}" for name in differing} | {"merge": "another merge rule"}
        return [words[name] for name in differing]

    def _parsed(self, stored: Any) -> InstantiationSettings:
        try:
            return InstantiationSettings.from_dict(stored)
        except InputError as error:
            raise InputError(f"plans.json, '{SETTINGS_KEY}': {error}") from error

    def _complete(self, key: str) -> dict[str, Any]:
        """A stored instantiation, completed with defaults for settings that an earlier version did not have."""
        return InstantiationSettings.completed(self.stored.get(key, {}))


class ModelPlans:
    """The plans of a trained model, in its folder ``nnUNet_results/Dataset/Trainer__Plans__Configuration``.

    Args:
        folder: the folder.

    Raises:
        InputError: there is no plans.json in it.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.plans_file = self.folder / "plans.json"
        if not self.plans_file.is_file():
            raise InputError(
                f"{self.plans_file} does not exist; give a model folder, "
                "nnUNet_results/Dataset/Trainer__Plans__Configuration."
            )

    def plans(self) -> dict[str, Any]:
        """What its plans.json holds now."""
        return read_json(self.plans_file)

    def settings(self) -> ModelSettings:
        """How its instances are made.

        Raises:
            InputError: the plans hold no such settings.
        """
        plans = self.plans()
        if SETTINGS_KEY not in plans:
            raise InputError(
                f"{self.plans_file} has no '{SETTINGS_KEY}'; only models of ConfLUNet trainers have heads."
            )
        return ModelSettings.from_plans(plans)

    def plans_tuned_to(self, instantiation: InstantiationSettings) -> dict[str, Any]:
        """Its plans with a choice for prediction to read, see :meth:`.ModelSettings.tuned_to`."""
        plans = self.plans()
        ModelSettings.from_plans(plans).tuned_to(instantiation).put_into(plans)
        return plans
