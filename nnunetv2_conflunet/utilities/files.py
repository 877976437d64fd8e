"""Files that are either whole or absent."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from nnunetv2_conflunet.utilities.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike, ending: str | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path` and rename it to `path` when the block ends without an error.

    Args:
        path: the file to write. Its folder is made when missing.
        ending: the part of the name that a writer looks at, such as ``.nii.gz``. Default: the last suffix.

    Yields:
        A hidden name in the same folder, unique to this process, with the same ending. Removed after an error.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.suffix if ending is None else ending
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp{ending}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(content: Any, path: str | os.PathLike) -> None:
    """Write `content` as indented JSON, whole or not at all. NaN becomes ``NaN``, as nnU-Net's own files have it."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is no JSON in UTF-8, or begins with a byte order mark, which nnU-Net does not read either.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); correct it and save it as UTF-8 without a byte order mark."
        ) from error
