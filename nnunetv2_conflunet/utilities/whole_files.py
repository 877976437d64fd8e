"""Whether a file is complete, judged by its header, its size and its end, without reading the rest."""

import gzip
import os
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import BinaryIO, cast
from zipfile import ZipFile

import blosc2
import nibabel
import SimpleITK as sitk
import tifffile
from nibabel.arrayproxy import ArrayProxy

CHUNK_BYTES = 2**24
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
ZIP_END_BYTES = 22
GIPL_HEADER_BYTES = 256
# The end of the text before the voxels. It is longer than HEADER_BYTES where it describes many segments.
TEXT_ENDS = {".nrrd": rb"\n\r?\n", ".mha": rb"ElementDataFile *= *LOCAL\r?\n"}
HEADER_BYTES, LONGEST_HEADER_BYTES = 2**16, 2**26


def is_whole(path: str | os.PathLike) -> bool:
    """Whether a file exists and is complete, see :func:`why_not_whole`."""
    return Path(path).is_file() and why_not_whole(path) is None


def why_not_whole(path: str | os.PathLike) -> str | None:
    """What a file lacks, such as its end after a full disk or a power cut; None for a complete file.

    Reads only the header and the end of the file. Formats that have neither, and unknown file endings, count as
    complete unless they are empty. Damage within a complete file is not detected.

    Args:
        path: a file, whose ending determines the format.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text("id,volume")
    ...     why_not_whole(f"{folder}/a.csv")
    'truncated: its last line has no end'
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            return "0 bytes"
        for ending, check in CHECKS.items():
            if path.name.lower().endswith(ending):
                check(path)
    except ValueError as error:
        return str(error)
    except Exception:
        return "truncated: its header or its end is missing"
    return None


def text_header(path: Path) -> bytes | None:
    """The text before the voxels of a .nrrd or .mha file; None if it has no end."""
    start = b""
    with open(path, "rb") as file:
        while len(start) < LONGEST_HEADER_BYTES and (more := file.read(max(HEADER_BYTES, len(start)))):
            start += more
            if found := re.search(TEXT_ENDS[path.suffix.lower()], start):
                return start[: found.end()]
    return None


def image_header(path: Path) -> sitk.ImageFileReader:
    """SimpleITK's reader of an image, which has read the header but not the voxels."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file for reading, decompressed if its name ends with .gz."""
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else open(path, "rb")


def nifti_bytes(header: nibabel.Nifti1Header, offset: int) -> int:
    """Size in bytes of an uncompressed NIfTI file whose voxels begin at `offset`."""
    return offset + prod(header.get_data_shape()) * header.get_data_dtype().itemsize


def voxel_bytes(path: Path) -> int:
    """Size in bytes of the uncompressed voxels of an image that SimpleITK reads."""
    reader = image_header(path)
    components = reader.GetNumberOfComponents()
    component = sitk.Image([1, 1], reader.GetPixelID(), components).GetSizeOfPixelComponent()
    return prod(reader.GetSize()) * components * component


def _require(found: int, expected: int) -> None:
    if found < expected:
        raise ValueError(f"truncated: {found} bytes of {expected}")


def _check_nifti(path: Path) -> None:
    image = cast(nibabel.Nifti1Image, nibabel.load(path))
    expected = nifti_bytes(image.header, int(cast(ArrayProxy, image.dataobj).offset))
    if path.name.lower().endswith(".gz"):
        _check_gzip(path, expected)
    else:
        _require(path.stat().st_size, expected)


def _check_gzip(path: Path, expected: int, start: int = 0) -> None:
    """Require that the file, from byte `start` on, decompresses to at least `expected` bytes."""
    # The last four bytes hold this size (RFC 1952, ISIZE), unless there are several members.
    if struct.unpack("<I", _end(path, 4))[0] == expected % 2**32:
        return
    with open(path, "rb") as file:
        file.seek(start)
        unpacked = gzip.GzipFile(fileobj=file)
        _require(sum(len(chunk) for chunk in iter(lambda: unpacked.read(CHUNK_BYTES), b"")), expected)


def _check_text_and_voxels(path: Path) -> None:
    header = text_header(path)
    if header is None:
        raise ValueError("truncated: its header has no end")
    packed = re.search(rb"CompressedDataSize *= *(\d+)", header)
    if re.search(rb"encoding: *gz", header):
        _check_gzip(path, voxel_bytes(path), len(header))
    elif re.search(rb"encoding: *raw|ElementDataFile", header):
        _require(path.stat().st_size, len(header) + (int(packed[1]) if packed else voxel_bytes(path)))


def _check_gipl(path: Path) -> None:
    _require(path.stat().st_size, GIPL_HEADER_BYTES + voxel_bytes(path))


def _check_png(path: Path) -> None:
    if _end(path, len(PNG_END)) != PNG_END:
        raise ValueError("truncated: its end is missing")


def _check_bmp(path: Path) -> None:
    with open(path, "rb") as file:
        _require(path.stat().st_size, struct.unpack("<2xI", file.read(6))[0])


def _check_tiff(path: Path) -> None:
    with tifffile.TiffFile(path) as file:
        pages = file.pages
        for page in (pages[0], pages[-1]):
            _require(path.stat().st_size, max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))))
        # Files by tifffile record the shape of the whole image, of which the last slices may be missing.
        if any(len(pages) * prod(pages[0].shape) < prod(whole["shape"]) for whole in file.shaped_metadata or ()):
            raise ValueError("truncated: it lacks slices")


def _check_npz(path: Path) -> None:
    with ZipFile(path) as archive:
        names = archive.namelist()
    # After a failed write Python closes the archive with the arrays written so far and leaves a rest behind its end.
    if not names or not _end(path, ZIP_END_BYTES).startswith(b"PK\5\6"):
        raise ValueError("truncated: it lacks arrays")


def _check_blosc2(path: Path) -> None:
    blosc2.open(urlpath=str(path), mode="r")


def _check_table(path: Path) -> None:
    if _end(path, 1) != b"\n":
        raise ValueError("truncated: its last line has no end")


def _end(path: Path, n_bytes: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(n_bytes, path.stat().st_size), os.SEEK_END)
        return file.read()


CHECKS: dict[str, Callable[[Path], None]] = {
    ".nii": _check_nifti,
    ".nii.gz": _check_nifti,
    ".nrrd": _check_text_and_voxels,
    ".mha": _check_text_and_voxels,
    ".gipl": _check_gipl,
    ".png": _check_png,
    ".bmp": _check_bmp,
    ".tif": _check_tiff,
    ".tiff": _check_tiff,
    ".npz": _check_npz,
    ".b2nd": _check_blosc2,
    ".csv": _check_table,
}
