"""Our trainers in nnU-Net's search path, for scripts that do not set it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2.paths import nnUNet_extTrainer

from nnunetv2_conflunet.nnunet_ext_path import nnunet_ext_path


@contextmanager
def ours_in_ext_trainer() -> Iterator[None]:
    """While open, ``nnUNet_extTrainer`` names the folder of our trainers too; the user's own entries come first."""
    name, users = nnUNet_extTrainer.env_var_name, nnUNet_extTrainer.get()
    paths = [i for i in (users or "").split(os.pathsep) if i]
    if str(nnunet_ext_path()) not in paths:
        paths.append(str(nnunet_ext_path()))
    os.environ[name] = os.pathsep.join(paths)
    try:
        yield
    finally:
        if users is None:
            del os.environ[name]
        else:
            os.environ[name] = users
