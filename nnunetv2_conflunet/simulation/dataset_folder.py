"""The folder of a simulated cohort: names of its cases, and what is removed before it is written."""

import re
import shutil
from pathlib import Path

from nnunetv2_conflunet.utilities.errors import InputError, list_some

SPLITS = "Tr", "Ts"
FOLDERS = tuple(kind + split for split in SPLITS for kind in ("images", "labels", "instances"))


def case_name(split: str, number: int) -> str:
    """nnU-Net's case identifier.

    >>> case_name("Tr", 3)
    'simTr_0003'
    """
    return f"sim{split}_{number:04d}"


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Create the empty folders of a dataset; `overwrite` first removes the files of an existing cohort.

    Raises:
        InputError: the folder is not empty and `overwrite` is False, or it holds files that are not of a cohort.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file.")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise InputError(f"{folder} is not empty; choose another dataset or give --overwrite.")
        if foreign := _foreign(folder):
            raise InputError(
                f"{folder} holds {list_some(foreign, limit=3)}, which is not of a simulated cohort; --overwrite "
                "replaces nothing else. Choose another dataset, or move it away."
            )
        # First the file that makes the folder a dataset, then only files of a cohort.
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in FOLDERS:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)


def _foreign(folder: Path) -> list[str]:
    """What would be removed and is not of a cohort: links, files in the place of folders, and other cases."""
    there = [place for place in (folder / name for name in FOLDERS) if place.exists() or place.is_symlink()]
    odd = [place for place in there if place.is_symlink() or not place.is_dir()]
    own = re.compile(rf"\.|sim({'|'.join(SPLITS)})_\d+")
    files = (file for place in there if place not in odd for file in sorted(place.iterdir()))
    return [str(path.relative_to(folder)) for path in (*odd, *(file for file in files if not own.match(file.name)))]
