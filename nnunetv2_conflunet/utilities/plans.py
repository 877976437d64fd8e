"""What the package keeps in nnU-Net's plans, which travel with every model."""

import os
import time
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import read_json

# The plans.json of a model folder is part of what nnUNetv2_export_model_to_zip packs.
SETTINGS_KEY = "conflunet"
INSTANTIATION_KEY = "instantiation"
# Beside a tuned choice the plans keep what the trainer had chosen, so that tuning can start from it again.
UNTUNED_KEY = "instantiation_before_tuning"
READING_ATTEMPTS, READING_PAUSE_S = 30, 0.1


def stored_settings(plans_file: str | os.PathLike) -> dict[str, Any]:
    """What a model keeps under :data:`SETTINGS_KEY`; empty where there is no plans.json or nothing in it."""
    return _read_while_others_write(plans_file).get(SETTINGS_KEY, {}) if Path(plans_file).is_file() else {}


def with_tuned_instantiation(
    settings: dict[str, Any], stored: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, Any]:
    """A trainer's settings with the instantiation that was tuned for the model before, if there is one.

    A choice that was tuned from other settings than the trainer has now is left out: the trainer was changed since.

    Args:
        settings: what the trainer keeps under :data:`SETTINGS_KEY`.
        stored: :func:`stored_settings` of the model.
        defaults: of an instantiation; an earlier version may have stored fewer settings.

    Returns:
        A new dictionary.
    """
    if UNTUNED_KEY not in stored or defaults | stored[UNTUNED_KEY] != settings[INSTANTIATION_KEY]:
        return dict(settings)
    return settings | {
        INSTANTIATION_KEY: defaults | stored[INSTANTIATION_KEY],
        UNTUNED_KEY: settings[INSTANTIATION_KEY],
    }


def _read_while_others_write(plans_file: str | os.PathLike) -> dict[str, Any]:
    """nnU-Net writes plans.json anew at the start of every fold, and not at once."""
    for _ in range(READING_ATTEMPTS - 1):
        try:
            return read_json(plans_file)
        except InputError:
            time.sleep(READING_PAUSE_S)
    return read_json(plans_file)
