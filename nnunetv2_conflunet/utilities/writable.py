"""Whether output files can be written, checked before the work starts."""

import tempfile
from pathlib import Path

from nnunetv2_conflunet.utilities.errors import InputError

# What identifies a file of a command is within its first bytes.
HEAD_BYTES = 1000
# One block of the file system, to notice a full disk.
PROBE = bytes(4096)


def require_writable(*files: Path) -> None:
    """Check that each file can be written. Nothing is created or changed.

    Raises:
        InputError: a folder is in the place of a file or vice versa, the file system is read-only or full, or the user
            may not write there.
    """
    for file in files:
        if file.exists() and not file.is_file():
            what = "a folder" if file.is_dir() else "not a regular file"
            raise InputError(
                f"{file} is {what}, but a file is to be written there; choose another location, or move it away."
            )
    for folder in dict.fromkeys(file.absolute().parent for file in files):
        there = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        if not there.is_dir():
            raise InputError(f"{there} is not a folder, so nothing can be written there; choose another location.")
        try:
            # A temporary file without a name in the folder.
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(PROBE)
        except OSError as error:
            raise InputError(
                f"Nothing can be written to {there} ({error.strerror}); make it writable, or choose another location."
            ) from error


def refuse_foreign(file: Path, mark: str, what: str) -> None:
    """Raise an InputError if a file exists, is not empty, and is not what the command writes.

    Args:
        file: what the command would replace.
        mark: text near the beginning of each file of the command.
        what: the command writes, in words.

    >>> refuse_foreign(Path("absent.html"), "<title>Report", "a report by this command")
    """
    if not file.exists():
        return
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head and mark.encode() not in head:
        raise InputError(f"{file} exists and is not {what}; name another file, or move it away.")
