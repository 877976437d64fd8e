"""What the package keeps in nnU-Net's plans, which travel with every model."""

import json
import os
import time
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.utilities.files import read_json

# The plans.json of a model folder is part of what nnUNetv2_export_model_to_zip packs.
SETTINGS_KEY = "conflunet"
INSTANTIATION_KEY = "instantiation"
# Beside a tuned choice the plans keep what the trainer had chosen, so that tuning can start from it again.
UNTUNED_KEY = "instantiation_before_tuning"
READING_ATTEMPTS, READING_PAUSE_S = 30, 0.1


def with_tuned_instantiation(settings: dict[str, Any], plans_file: str | os.PathLike) -> dict[str, Any]:
    """A trainer's settings with the instantiation that was tuned for the model before, if there is one.

    A choice that was tuned from other settings than the trainer has now is left out: the trainer was changed since.

    Args:
        settings: what the trainer keeps under :data:`SETTINGS_KEY`.
        plans_file: plans.json of the model folder; it need not exist.

    Returns:
        A new dictionary.
    """
    stored = _read_while_others_write(plans_file).get(SETTINGS_KEY, {}) if Path(plans_file).is_file() else {}
    if UNTUNED_KEY not in stored or stored[UNTUNED_KEY] != settings[INSTANTIATION_KEY]:
        return dict(settings)
    return settings | {key: stored[key] for key in (INSTANTIATION_KEY, UNTUNED_KEY)}


def _read_while_others_write(plans_file: str | os.PathLike) -> dict[str, Any]:
    """nnU-Net writes plans.json anew at the start of every fold, and not at once."""
    for _ in range(READING_ATTEMPTS - 1):
        try:
            return read_json(plans_file)
        except json.JSONDecodeError:
            time.sleep(READING_PAUSE_S)
    return read_json(plans_file)
