"""The settings for inference in the plans that a training writes, as its other processes and other folds do."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch.distributed as dist

from nnunetv2_conflunet.inference.model_settings import DamagedPlans, ModelSettings, plans_lock


@contextmanager
def writing_plans(model_folder: str, is_ddp: bool) -> Iterator[None]:
    """Hold the lock of a model's plans until every process of this training has left the block.

    Args:
        model_folder: where the plans are.
        is_ddp: whether training is distributed over several processes, of which the first one holds the lock.
    """
    with plans_lock(model_folder) if _is_first(is_ddp) else nullcontext():
        yield
        if is_ddp:
            dist.barrier()


def put_settings_into_plans(own: ModelSettings, plans: dict[str, Any], plans_file: str, is_ddp: bool) -> str:
    """Add the settings for inference to the plans of a training: a trainer's own, or what its model tuned from them.

    Args:
        own: those of the trainer.
        plans: changed in place, to the same in all processes.
        plans_file: the plans that the model has stored, if any.
        is_ddp: as for :func:`writing_plans`.

    Returns:
        A line for the log if the settings differ from the stored ones, or those cannot be read; otherwise empty.

    Raises:
        InputError: the stored settings are not possible.

    >>> put_settings_into_plans(ModelSettings({"instantiation": {}}), plans := {}, "none.json", is_ddp=False), plans
    ('', {'conflunet': {'instantiation': {}}})
    """
    found: list = [_stored(plans_file) if _is_first(is_ddp) else None]
    if is_ddp:
        # Another fold may change the file at any time, and each process writes what it has read.
        dist.broadcast_object_list(found)
    before, damage = found[0]
    now = own.keeping_tuning_of(before)
    now.put_into(plans)
    if damage or not before.stored or not (differing := now.differences(before)):
        return damage
    tune = "Those were tuned from settings that the trainer no longer has: tune again. " * before.is_tuned
    return (
        f"Instances are made with {'; '.join(differing)} as in {plans_file}, which prediction reads. {tune}"
        "Training writes that file when it starts, for all folds; validation alone does not."
    )


def _stored(plans_file: str) -> tuple[ModelSettings, str]:
    """What a model has stored, and what to say if its file is damaged: like nnU-Net, training then writes it anew."""
    try:
        return ModelSettings.from_model(plans_file), ""
    except DamagedPlans:
        return ModelSettings(), (
            f"{plans_file} is damaged: settings in it that were tuned or learned are lost. Training writes that file "
            "anew when it starts; validation alone does not, so run nnUNetv2_train with --c instead."
        )


def _is_first(is_ddp: bool) -> bool:
    return not is_ddp or dist.get_rank() == 0
