"""Faults of NRRD, MetaImage and GIPL files that SimpleITK overlooks: it compares no checksum and fills with zeros."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_conflunet.imageio.stored import (
    Checksum,
    StoredVoxels,
    gzip_sum,
    refuse_huge,
    refuse_pixels,
    refuse_truncated,
    unpacking,
)
from nnunetv2_conflunet.utilities.whole_files import GIPL_HEADER_BYTES, image_header, text_header

# What the text of a header says where the voxels after it are compressed.
SAYS_COMPRESSED = {
    ".nrrd": rb"(?im)^encoding: *(gzip|gz)\s*$",
    ".mha": rb"(?im)^CompressedData *= *True\s*$",
}
CHUNK_BYTES = 2**24
ENDINGS = (*SAYS_COMPRESSED, ".gipl")
GZIP_MAGIC, GZIP_OR_ZLIB = b"\x1f\x8b", 32 + zlib.MAX_WBITS


def stored_itk(path: Path) -> StoredVoxels:
    """How a file keeps its voxels; costs the reading of its header.

    Raises:
        InputError: voxels are complex or have several values, or are more than fit into memory.
        RuntimeError: SimpleITK cannot read the header.
    """
    header = image_header(path)
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1, 1], header.GetPixelID())).dtype
    refuse_pixels(path, dtype, header.GetNumberOfComponents())
    refuse_huge(path, header.GetSize())
    ending = path.suffix.lower()
    if ending in SAYS_COMPRESSED:
        start = _start_of_compressed(path, ending)
        # SimpleITK itself refuses an uncompressed file of these that is too short.
        return StoredVoxels(dtype, None, lambda values: None) if start is None else _compressed(path, dtype, start)
    expected = GIPL_HEADER_BYTES + int(np.prod(header.GetSize())) * dtype.itemsize
    return StoredVoxels(dtype, None, lambda values: refuse_truncated(path, path.stat().st_size, expected))


def _start_of_compressed(path: Path, ending: str) -> int | None:
    """Where the compressed voxels begin; None for a file that is not compressed."""
    text = text_header(path)
    return len(text) if text and re.search(SAYS_COMPRESSED[ending], text) else None


def _compressed(path: Path, dtype: np.dtype, start: int) -> StoredVoxels:
    with open(path, "rb") as file:
        file.seek(start)
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(-4, 2)
        (last,) = struct.unpack(">I", file.read(4))
    checksum = Checksum(zlib.crc32, gzip_sum(path)) if is_gzip else Checksum(zlib.adler32, last)
    return StoredVoxels(dtype, checksum, lambda values: _check_stream(path, start))


def _check_stream(path: Path, start: int) -> None:
    stream = zlib.decompressobj(GZIP_OR_ZLIB)
    with unpacking(path):
        left = path.read_bytes()[start:]
        while not stream.eof:
            # In pieces, since a small file may unpack to more than fits into memory.
            unpacked, left = stream.decompress(left, CHUNK_BYTES), stream.unconsumed_tail
            if not unpacked and not left:
                raise EOFError("the compressed voxels have no end")
