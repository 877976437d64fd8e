"""Faults of NRRD, MetaImage and GIPL files that SimpleITK misses: it ignores checksums and pads with zeros."""

import os
import re
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_conflunet.imageio import stored
from nnunetv2_conflunet.utilities.whole_files import GIPL_HEADER_BYTES, image_header, text_header, voxel_bytes

# How the text of a header says that the voxels are compressed.
SAYS_COMPRESSED = {
    ".nrrd": rb"(?im)^encoding: *(gzip|gz)\s*$",
    ".mha": rb"(?im)^CompressedData *= *True\s*$",
}
CHUNK_BYTES = 2**24
ENDINGS = (*SAYS_COMPRESSED, ".gipl")
GZIP_MAGIC, GZIP_OR_ZLIB = b"\x1f\x8b", 32 + zlib.MAX_WBITS


def stored_itk(path: Path) -> stored.StoredVoxels:
    """How a file stores its voxels; reads only the header.

    Raises:
        InputError: voxels are complex or have several values, or do not fit into memory.
        RuntimeError: SimpleITK cannot read the header.
    """
    header = image_header(path)
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1, 1], header.GetPixelID())).dtype
    stored.refuse_pixels(path, dtype, header.GetNumberOfComponents())
    stored.refuse_huge(path, header.GetSize())
    says_compressed = SAYS_COMPRESSED.get(path.suffix.lower())
    if says_compressed is None:
        return stored.StoredVoxels(dtype, partial(_check_gipl, path))
    text = text_header(path)
    if text is None or not re.search(says_compressed, text):
        # SimpleITK itself rejects uncompressed files that are too short.
        return stored.StoredVoxels(dtype, lambda values: None)
    start = len(text)
    with open(path, "rb") as file:
        file.seek(start)
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(-4, os.SEEK_END)
        adler32 = int.from_bytes(file.read(4), "big")
    check_whole = partial(_check_stream, path, start)
    if is_gzip:
        return stored.StoredVoxels(dtype, check_whole, stored.gzip_sum(path))
    return stored.StoredVoxels(dtype, check_whole, adler32, zlib.adler32, sum_before=zlib.adler32(b""))


def _check_gipl(path: Path, _: np.ndarray | None) -> None:
    stored.refuse_truncated(path, path.stat().st_size, GIPL_HEADER_BYTES + voxel_bytes(path))


def _check_stream(path: Path, start: int, _: np.ndarray | None = None) -> None:
    stream = zlib.decompressobj(GZIP_OR_ZLIB)
    with stored.unpacking(path):
        left = path.read_bytes()[start:]
        while not stream.eof:
            # In pieces, since even a small file may decompress to more than fits into memory.
            unpacked, left = stream.decompress(left, CHUNK_BYTES), stream.unconsumed_tail
            if not unpacked and not left:
                raise EOFError("the compressed voxels have no end")
