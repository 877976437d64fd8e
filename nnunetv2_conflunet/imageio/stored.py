"""How a file stores its voxels, and whether the values that were read are those in the file."""

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from math import prod
from pathlib import Path

import numpy as np

from nnunetv2_conflunet.utilities.errors import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class StoredVoxels:
    """How a file stores its voxels.

    Attributes:
        dtype: of a stored value, with its byte order.
        check_whole: takes the values that were read, or None; reads as much of the file as needed and raises an
            InputError if the file is incomplete.
        checksum: stored in a compressed file; None if there is none, or if the header scales voxels.
        sum_function: ``zlib.crc32`` or ``zlib.adler32``, whichever gave `checksum`.
        sum_before: its value for the bytes before the first voxel.
    """

    dtype: np.dtype
    check_whole: Callable[[np.ndarray | None], None]
    checksum: int | None = None
    sum_function: Callable[..., int] = zlib.crc32
    sum_before: int = 0

    def has_sum_of(self, values: np.ndarray) -> bool:
        """Whether integers that were read match the checksum; then the file need not be read a second time.

        Args:
            values: in the file's axis order, slowest axis first.
        """
        if self.checksum is None:
            return False
        total = self.sum_before
        # Slice by slice, so that each stays in the processor's cache.
        for part in values:
            total = self.sum_function(np.ascontiguousarray(part, self.dtype), total)
        return total == self.checksum


def gzip_sum(path: Path) -> int:
    """The CRC-32 of the content, with which a gzip file ends (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(-8, os.SEEK_END)
        return struct.unpack("<I", file.read(4))[0]


def check_png(path: Path) -> None:
    """Compare every chunk of a PNG with its checksum, which readers do not do.

    Raises:
        InputError: a checksum differs, or the file ends before its last chunk.
    """
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        # Another format under this name, which the reader accepts or rejects.
        return
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND" and position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        body, stored = content[position + 4 : position + 8 + length], content[position + 8 + length :][:4]
        kind = body[:4]
        if zlib.crc32(body) != int.from_bytes(stored, "big") or len(stored) < 4:
            raise _damaged(path, f"chunk {kind!r} is not whole")
        position += 12 + length


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged compressed file into an InputError that names it."""
    try:
        yield
    except (EOFError, BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def refuse_truncated(path: Path, found: int, expected: int) -> None:
    """Raise an InputError for a file with fewer bytes than its header promises."""
    if found < expected:
        raise InputError(
            f"{path} cannot be read: it is truncated, {found} bytes of {expected}. Copy or export it again."
        )


def refuse_huge(path: Path, shape: Iterable[int]) -> None:
    """Raise an InputError for a map that does not fit into this machine's memory, before allocating any."""
    shape = tuple(map(int, shape))
    # nnU-Net's readers return float32, and ids are int32.
    refuse_beyond_memory(path, 8 * prod(shape), f"{' x '.join(map(str, shape))} voxels")


def refuse_beyond_memory(path: Path, n_bytes: int, what: str) -> None:
    """Raise an InputError if the content of a file needs more memory than this machine has."""
    try:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        # Not every system reports its memory.
        return
    if n_bytes > available > 0:
        raise InputError(
            f"{path} cannot be read: it claims to hold {what}, which take {n_bytes / 2**30:.3g} GiB of memory; "
            f"this machine has {available / 2**30:.3g}. Export it again if it should be smaller, or crop it."
        )


def refuse_pixels(path: Path, dtype: np.dtype, n_values: int) -> None:
    """Raise an InputError for complex pixels and for pixels of several values, such as RGB."""
    if dtype.kind == "c":
        raise InputError(f"{path} holds complex values; a map holds integers. Save it as an integer type.")
    if n_values != 1:
        raise InputError(
            f"{path} holds {n_values} values per voxel (RGB, RGBA or vector pixels); a map has one. Save one number "
            "per voxel, as an integer type."
        )


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read: it is damaged or cut off ({why}). Copy or export it again.")
