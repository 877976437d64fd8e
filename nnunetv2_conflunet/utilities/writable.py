"""Whether output files can be written, checked before the work starts."""

import tempfile
from pathlib import Path

from nnunetv2_conflunet.utilities.errors import InputError

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
