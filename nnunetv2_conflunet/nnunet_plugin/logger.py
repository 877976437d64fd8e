"""Additional values in nnU-Net's training log, which checkpoints store."""

from collections.abc import Iterable

from nnunetv2.training.logging.nnunet_logger import MetaLogger


def add_log_keys(logger: MetaLogger, keys: Iterable[str]) -> None:
    """Let nnU-Net's logger, which accepts only its own keys, take one value per epoch for each of these."""
    for key in keys:
        logger.local_logger.my_fantastic_logging.setdefault(key, [])
