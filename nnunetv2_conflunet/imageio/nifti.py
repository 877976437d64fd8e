"""Faults of NIfTI files that readers overlook, each in its own way, so that other ids come out."""

import gzip
import io
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from nnunetv2_conflunet.imageio.stored import (
    Checksum,
    StoredVoxels,
    gzip_sum,
    refuse_huge,
    refuse_pixels,
    refuse_truncated,
    unpacking,
)
from nnunetv2_conflunet.utilities.errors import InputError

ENDINGS = (".nii", ".nii.gz")
CHUNK_BYTES = 2**20
# What lies between header and voxels describes the image; more than this is a damaged header, or means to fill memory.
LARGEST_OFFSET = 2**26
# A header and the four bytes that say whether extensions follow: of NIfTI-1, and of NIfTI-2.
SHORTEST_OFFSET, LONGEST_HEADER = 348 + 4, 540 + 4


def stored_nifti(path: Path) -> StoredVoxels:
    """How a NIfTI file keeps its voxels; costs the reading of its header.

    Raises:
        InputError: the header is missing or damaged, asks for complex, RGB or RGBA voxels, for voxels that begin within
            it or far behind it, for a shift without a scale, or for more voxels than fit into memory.
    """
    compressed = path.name.lower().endswith(".gz")
    with unpacking(path), (gzip.open if compressed else open)(path, "rb") as file:
        start = file.read(LONGEST_HEADER)
        header = _header(path, start)
        offset = int(header["vox_offset"])
        if offset > LARGEST_OFFSET:
            raise InputError(f"{path} has voxels that begin at byte {offset}, far behind its header. Export it again.")
        start = start[:offset] + file.read(offset - len(start)) if offset > len(start) else start[:offset]
    dtype = header.get_data_dtype()
    refuse_pixels(path, dtype, len(dtype.names) if dtype.names else 1)
    if offset < SHORTEST_OFFSET:
        raise InputError(f"{path} has voxels that begin at byte {offset}, within its header. Export it again.")
    slope, intercept = header.get_slope_inter()
    refuse_huge(path, header.get_data_shape())
    layout = _Layout(dtype, prod(header.get_data_shape()), offset, slope or 1.0, intercept or 0.0)
    # Scaled by 1.1, a stored 1 is read as 1.1, whose whole part would have the checksum of the file.
    is_scaled = (layout.slope, layout.intercept) != (1.0, 0.0)
    checksum = Checksum(zlib.crc32, gzip_sum(path), start) if compressed and not is_scaled else None
    return StoredVoxels(dtype, checksum, lambda values: _check_whole(path, layout, values))


@dataclass(frozen=True)
class _Layout:
    """Where the voxels of a file are: `count` values of `dtype` from the byte `offset` on, to be scaled."""

    dtype: np.dtype
    count: int
    offset: int
    slope: float
    intercept: float


def _header(path: Path, start: bytes) -> Nifti1Header:
    for kind in (Nifti1Header, Nifti2Header):
        if kind.may_contain_header(start):
            try:
                header = kind.from_fileobj(io.BytesIO(start))
                _refuse_shift_without_scale(path, header)
                return header
            except HeaderDataError as error:
                raise InputError(
                    f"{path} has a NIfTI header that cannot be used ({error}). Export it again."
                ) from error
    raise InputError(f"{path} holds no NIfTI header; its name says that it is a NIfTI file. Export it again.")


def _refuse_shift_without_scale(path: Path, header: Nifti1Header) -> None:
    """The standard has no scaling where the slope is 0; SimpleITK adds the intercept all the same."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    is_scaled = header.get_slope_inter()[0] is not None
    if not is_scaled and intercept != 0 and not np.isnan(intercept):
        raise InputError(
            f"{path} has scl_slope {slope:g}, which means that values are not scaled, and scl_inter {intercept:g}, "
            "which some readers add nevertheless. Set scl_slope to 1 and scl_inter to 0."
        )


def _check_whole(path: Path, layout: _Layout, values: np.ndarray | None) -> None:
    """Read the file to its end where it is compressed or of numbers that SimpleITK may have read as 0, such as NaN."""
    compressed = path.name.lower().endswith(".gz")
    expected = layout.offset + layout.count * layout.dtype.itemsize
    if not compressed:
        refuse_truncated(path, path.stat().st_size, expected)
        if layout.dtype.kind != "f":
            return
    with unpacking(path), (gzip.open if compressed else open)(path, "rb") as file:
        content = file.read(expected)
        # The checksum is compared at the end of the file.
        while file.read(CHUNK_BYTES):
            pass
    refuse_truncated(path, len(content), expected)
    stored = np.frombuffer(content, layout.dtype, layout.count, layout.offset)
    if layout.dtype.kind == "f" and not np.isfinite(stored).all():
        raise InputError(f"{path} holds NaN or infinite values; a map holds integers from 0.")
    if values is not None and not np.array_equal(np.rint(stored * layout.slope + layout.intercept), values.ravel()):
        _refuse_other_voxels(path)


def _refuse_other_voxels(path: Path) -> NoReturn:
    """SimpleITK finds the header in the file it is given, and the voxels in another of the same name."""
    twin = path.with_suffix("")
    if twin.is_file():
        raise InputError(f"{path} is read with the voxels of {twin.name} beside it. Move one of the two elsewhere.")
    raise InputError(f"{path} holds other voxels than its reader returns. Export it again.")
