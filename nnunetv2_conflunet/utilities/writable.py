"""Whether files can be written, checked before the work whose results they will hold."""

import tempfile
from pathlib import Path

from nnunetv2_conflunet.utilities.errors import InputError

# A whole block of the file system, so that a full disk is noticed.
PROBE = bytes(4096)


def require_writable(*files: Path) -> None:
    """Check that each file could be written now. Nothing is made or changed.

    Raises:
        InputError: a folder stands where a file must be or the other way around, the file system is read-only or full,
            or the user may not write there.
    """
    for file in files:
        if file.exists() and not file.is_file():
            what = "a folder" if file.is_dir() else "no regular file"
            raise InputError(f"{file} is {what}, where a file is to be written; name another place, or move it away.")
    for folder in dict.fromkeys(file.absolute().parent for file in files):
        there = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        if not there.is_dir():
            raise InputError(f"{there} is no folder, so nothing can be written there; name another place.")
        try:
            # Has no name in the folder.
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(PROBE)
        except OSError as error:
            raise InputError(
                f"Nothing can be written to {there} ({error.strerror}); make it writable, or name another place."
            ) from error
