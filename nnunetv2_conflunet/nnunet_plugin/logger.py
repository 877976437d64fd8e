"""Further values in nnU-Net's log of a training, which its checkpoints keep."""

from collections.abc import Iterable

from nnunetv2.training.logging.nnunet_logger import MetaLogger


def add_log_keys(logger: MetaLogger, keys: Iterable[str]) -> None:
    """Let nnU-Net's logger, which knows its own names only, take one value per epoch under each of these."""
    for key in keys:
        logger.local_logger.my_fantastic_logging.setdefault(key, [])
