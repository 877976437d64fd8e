"""Faults of NIfTI files that SimpleITK reads over: a truncated file and NaN both come out as zeros."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np

CHUNK_BYTES = 2**24


def check_nifti(path: Path) -> None:
    """Raise a ValueError for a NIfTI file that is shorter than its header says or holds NaN or infinite values.

    Costs a few reads of single bytes for a sound file of integers; other file formats are not looked at.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    image = nibabel.load(path)
    expected = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    compressed = path.name.lower().endswith(".gz")
    if (_size_if_one_member(path) if compressed else path.stat().st_size) != expected % 2**32:
        found = _decompressed_size(path) if compressed else path.stat().st_size
        if found < expected:
            raise ValueError(f"truncated: {found} bytes of {expected}")
    if image.get_data_dtype().kind == "f" and not np.isfinite(np.asanyarray(image.dataobj)).all():
        raise ValueError("NaN or infinite values")


def _size_if_one_member(path: Path) -> int:
    """What the last four bytes of a gzip file claim (RFC 1952, ISIZE)."""
    with open(path, "rb") as file:
        file.seek(-4, 2)
        return struct.unpack("<I", file.read(4))[0]


def _decompressed_size(path: Path) -> int:
    with gzip.open(path) as file:
        return sum(len(chunk) for chunk in iter(lambda: file.read(CHUNK_BYTES), b""))
