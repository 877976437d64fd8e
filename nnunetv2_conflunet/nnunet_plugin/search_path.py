"""``nnUNet_extTrainer``, the search path on which nnU-Net finds our trainers."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "nnUNet_extTrainer"


def nnunet_ext_path() -> Path:
    """The folder with the one module that exports the trainers, for nnU-Net's search by class name.

    >>> nnunet_ext_path().name
    'nnunet_ext'
    """
    return Path(__file__).resolve().parents[1] / "nnunet_ext"


@contextmanager
def ours_in_ext_trainer() -> Iterator[None]:
    """Within this context, ``nnUNet_extTrainer`` also names the folder of our trainers, after the user's own entries.

    >>> with ours_in_ext_trainer():
    ...     str(nnunet_ext_path()) in os.environ["nnUNet_extTrainer"]
    True
    """
    users = os.environ.get(NAME)
    paths = [path for path in (users or "").split(os.pathsep) if path]
    if str(nnunet_ext_path()) not in paths:
        paths.append(str(nnunet_ext_path()))
    os.environ[NAME] = os.pathsep.join(paths)
    try:
        yield
    finally:
        if users is None:
            del os.environ[NAME]
        else:
            os.environ[NAME] = users
