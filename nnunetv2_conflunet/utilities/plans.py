"""What the package keeps in nnU-Net's plans, which travel with every model."""

import os
from pathlib import Path
from typing import Any

from nnunetv2_conflunet.utilities.files import read_json

# The plans.json of a model folder is part of what nnUNetv2_export_model_to_zip packs.
SETTINGS_KEY = "conflunet"
INSTANTIATION_KEY = "instantiation"
# Beside a tuned choice the plans keep what the trainer had chosen, so that tuning can start from it again.
UNTUNED_KEY = "instantiation_before_tuning"


def with_tuned_instantiation(settings: dict[str, Any], plans_file: str | os.PathLike) -> dict[str, Any]:
    """A trainer's settings with the instantiation that was tuned for the model before, if there is one.

    A choice that was tuned from other settings than the trainer has now is left out: the trainer was changed since.

    Args:
        settings: what the trainer keeps under :data:`SETTINGS_KEY`.
        plans_file: plans.json of the model folder; it need not exist.

    Returns:
        A new dictionary.
    """
    stored = read_json(plans_file).get(SETTINGS_KEY, {}) if Path(plans_file).is_file() else {}
    if UNTUNED_KEY not in stored or stored[UNTUNED_KEY] != settings[INSTANTIATION_KEY]:
        return dict(settings)
    return settings | {key: stored[key] for key in (INSTANTIATION_KEY, UNTUNED_KEY)}
