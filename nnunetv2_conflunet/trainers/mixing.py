"""Combining our trainers with nnU-Net's, as in ``class X(nnUNetTrainerConfLUNet, nnUNetTrainerBN)``.

Every method of ours calls the next class, so trainers of nnU-Net take effect when named after ours. Most of nnU-Net's
methods do not call the next class, so before ours they would remove a part of it; this is refused.
"""

from collections.abc import Callable
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_conflunet.utilities.errors import InputError

PACKAGE = __name__.partition(".")[0]
# Values that nnU-Net's trainer sets by itself; other values come from a trainer that is mixed in.
STOCK_EPOCHS = 1000
PAPER_EPOCHS = 300
STOCK_VALUES = {
    "initial_lr": 1e-2,
    "weight_decay": 3e-5,
    "probabilistic_oversampling": False,
    "oversample_foreground_percent": 0.33,
}
# Methods that a trainer named before ours may replace, since the heads can be trained without them.
REPLACEABLE = ("__init__", "load_checkpoint", "_set_batch_size_and_oversample", "get_dataloaders")


class UnlessMixedIn:
    """Decorator for a method that is skipped if a trainer mixed in after it has its own.

    For choices of a recipe that replace something, such as the optimizer.
    """

    def __init__(self, method: Callable):
        self.method = method

    def __set_name__(self, owner: type, name: str):
        self.owner, self.name = owner, name

    def __get__(self, trainer: nnUNetTrainer | None, kind: type) -> Callable:
        if trainer is None:
            return self.method
        following = _after(kind, self.owner)
        if next(other for other in following if self.name in vars(other)) is nnUNetTrainer:
            return self.method.__get__(trainer, kind)
        return getattr(super(self.owner, trainer), self.name)


def refuse_to_replace(kind: type[nnUNetTrainer]) -> None:
    """Refuse a trainer in which a class of nnU-Net removes what ours adds.

    Raises:
        InputError: names both classes and the order in which they work together.
    """
    classes = kind.__mro__
    for position, ours in enumerate(classes):
        if not _is_ours(ours):
            continue
        for name, method in vars(ours).items():
            if name in REPLACEABLE or isinstance(method, UnlessMixedIn) or not _calls_super(method):
                continue
            for other in classes[:position]:
                if name in vars(other) and not issubclass(other, ours) and not _calls_super(vars(other)[name]):
                    raise InputError(
                        f"{other.__name__}.{name} would replace {ours.__name__}'s in {kind.__name__}; name "
                        f"ConfLUNet's trainer first: {_other_order(kind, other)}."
                    )


def set_epochs(trainer: nnUNetTrainer) -> None:
    """Set a trainer's number of epochs to that of its class; a trainer that is mixed in overrides our defaults.

    Raises:
        InputError: both set a number of epochs.
    """
    if trainer.num_epochs == STOCK_EPOCHS:
        trainer.num_epochs = trainer.epochs
    elif trainer.epochs not in (STOCK_EPOCHS, PAPER_EPOCHS, trainer.num_epochs):
        raise InputError(
            f"{type(trainer).__name__} has epochs = {trainer.epochs}, but a trainer of nnU-Net mixed into it sets "
            f"{trainer.num_epochs}; keep one of the two numbers."
        )


def set_unless_mixed_in(trainer: nnUNetTrainer, **values: Any) -> None:
    """Set attributes that still have nnU-Net's own values; other values come from a trainer that is mixed in."""
    for name, value in values.items():
        if getattr(trainer, name) == STOCK_VALUES[name]:
            setattr(trainer, name, value)


def _after(kind: type, owner: type) -> tuple[type, ...]:
    return kind.__mro__[kind.__mro__.index(owner) + 1 :]


def _calls_super(method: object) -> bool:
    """Whether a method calls super(), judged from its code."""
    function = getattr(method, "__func__", method)
    while function is not None:
        code = getattr(function, "__code__", None)
        if code is not None and ("__class__" in code.co_freevars or "super" in code.co_names):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _other_order(kind: type, other: type) -> str:
    """The correct first line of the class that mixes `other` with ours."""
    mixing = next(each for each in reversed(kind.__mro__) if issubclass(each, other) and _has_ours(each))
    bases = sorted(mixing.__bases__, key=lambda base: issubclass(base, other) and not _has_ours(base))
    return f"class {mixing.__name__}({', '.join(base.__name__ for base in bases)})"


def _has_ours(kind: type) -> bool:
    return any(_is_ours(each) for each in kind.__mro__)


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(f"{PACKAGE}.")
