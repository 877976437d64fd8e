"""Writing files completely or not at all."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.whole_files import why_not_whole

# Errors that freeing disk space would not fix.
WRONG_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextmanager
def atomic_path(
    path: str | os.PathLike, ending: str | None = None, beside: Mapping[Path, str] | None = None
) -> Iterator[Path]:
    """Yield a temporary path next to `path` and rename it to `path` when the block ends without an error.

    The file is verified first, since some writers fail silently on a full disk, and flushed to disk.

    Args:
        path: the file to write. Its folder is created if needed.
        ending: the file ending by which a writer picks the format, such as ``.nii.gz``. Default: the last suffix.
        beside: maps additional files to their texts. They appear together with `path`: all files or none, `path` last.

    Yields:
        A hidden path in the same folder, unique to this process, with the same ending. Removed after an error.

    Raises:
        InputError: a file cannot be written completely, or the block cannot read another one. Existing files are left
            as they were.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "a.txt"), beside={Path(folder, "b.txt"): "second"}) as temporary:
    ...         _ = temporary.write_text("first")
    ...     sorted(file.name for file in Path(folder).iterdir())
    ['a.txt', 'b.txt']
    """
    path = Path(path)
    temporaries = {other: _temporary_name(other, other.suffix) for other in beside or {}}
    temporaries[path] = temporary = _temporary_name(path, path.suffix if ending is None else ending)
    try:
        with _finished(path, temporary):
            yield temporary
        for other, text in (beside or {}).items():
            with _finished(other, temporaries[other]):
                _write_text(temporaries[other], text)
        for file, written in temporaries.items():
            with _explained(file):
                os.replace(written, file)
    finally:
        for written in temporaries.values():
            with suppress(OSError):
                written.unlink(missing_ok=True)


@contextmanager
def moved_together(folders: Iterable[Path]) -> Iterator[dict[Path, Path]]:
    """For each folder a hidden one inside it, whose files move into the folder if the block ends without an error.

    Otherwise nothing of them remains. Folders are created if needed.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as name:
    ...     with moved_together([Path(name, "maps")]) as unfinished:
    ...         _ = (unfinished[Path(name, "maps")] / "a.txt").write_text("first")
    ...     [str(file.relative_to(name)) for file in Path(name).rglob("*")]
    ['maps', 'maps/a.txt']
    """
    with ExitStack() as stack:
        unfinished = {}
        for folder in dict.fromkeys(folders):
            if not folder.exists():
                folder.mkdir(parents=True)
                stack.callback(_remove_if_empty, folder)
            unfinished[folder] = Path(stack.enter_context(TemporaryDirectory(prefix=".unfinished-", dir=folder)))
        yield unfinished
        for folder, hidden in unfinished.items():
            for file in sorted(hidden.iterdir()):
                with _explained(folder / file.name):
                    os.replace(file, folder / file.name)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Write each text to its file as UTF-8: all of them or none, in order."""
    *others, last = texts
    with atomic_path(last, beside={other: texts[other] for other in others}) as temporary:
        _write_text(temporary, texts[last])


def write_json(content: Any, path: str | os.PathLike) -> None:
    """Write `content` as indented JSON, completely or not at all. NaN becomes ``NaN``, as in nnU-Net's own files."""
    write_texts({Path(path): json_text(content)})


def json_text(content: Any) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(content, indent=4) + "\n"


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is not JSON in UTF-8, or begins with a byte order mark, which nnU-Net does not read either.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path} is not valid JSON ({error}); correct it and save it as UTF-8 without a byte order mark."
        ) from error


def is_file_name(name: object) -> bool:
    """Whether `name`, read from an untrusted file, is a plain file name rather than a path.

    >>> is_file_name("ms_1"), is_file_name("../ms_1")
    (True, False)
    """
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name and "\0" not in name


def _temporary_name(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp{ending}")


def _write_text(path: Path, text: str) -> None:
    # Bytes, since tables have their line endings already.
    path.write_bytes(text.encode("utf-8"))


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _finished(path: Path, temporary: Path) -> Iterator[None]:
    """After the block has written `temporary`, make sure that all of it is on disk."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
        fault = why_not_whole(temporary)
        if fault is not None:
            raise OSError(fault)
        # Some systems flush only files that are open for writing.
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what writers raise into an InputError that names the file, or another one that could not be read.

    SimpleITK and Blosc2 only raise RuntimeError.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        what = getattr(error, "strerror", None) or (str(error).strip().splitlines() or [type(error).__name__])[-1]
        named = [getattr(error, name, None) for name in ("filename", "filename2")]
        files = [Path(os.fsdecode(name)) for name in named if isinstance(name, (str, bytes, os.PathLike))]
        if files and not any(path.is_relative_to(file) or file.name.startswith(f".{path.name}.") for file in files):
            raise InputError(f"{files[0]} cannot be used ({what}). Check that it is there and can be read.") from error
        if getattr(error, "errno", None) in WRONG_PLACE:
            raise InputError(f"{path} cannot be written ({what}). Choose a location where you may write.") from error
        raise InputError(
            f"{path} cannot be written completely ({what}). Is the disk full? Make room, then run the command "
            "again; existing files are unchanged."
        ) from error
