"""Faults of NIfTI files that readers miss and that would silently change ids."""

import io
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from nnunetv2_conflunet.imageio import stored
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.whole_files import nifti_bytes, open_unpacked

ENDINGS = (".nii", ".nii.gz")
CHUNK_BYTES = 2**20
# Extensions lie between header and voxels. An offset above this is a damaged header, or an attack on memory.
LARGEST_OFFSET = 2**26
# Header plus the four bytes that announce extensions: NIfTI-1, and NIfTI-2.
SHORTEST_OFFSET, LONGEST_HEADER = 348 + 4, 540 + 4


def stored_nifti(path: Path) -> stored.StoredVoxels:
    """How a NIfTI file stores its voxels; reads only the header.

    Raises:
        InputError: the header is missing or damaged, or declares complex, RGB or RGBA voxels, voxels that begin within
            it or far behind it, an intercept without a slope, or more voxels than fit into memory.
    """
    with stored.unpacking(path), open_unpacked(path) as file:
        start = file.read(LONGEST_HEADER)
        header = _header(path, start)
        offset = int(header["vox_offset"])
        if offset > LARGEST_OFFSET:
            raise InputError(f"{path} has voxels that begin at byte {offset}, far behind its header. Export it again.")
        sum_before = zlib.crc32((start + file.read(max(0, offset - len(start))))[:offset])
    dtype = header.get_data_dtype()
    stored.refuse_pixels(path, dtype, len(dtype.names) if dtype.names else 1)
    if offset < SHORTEST_OFFSET:
        raise InputError(f"{path} has voxels that begin at byte {offset}, within its header. Export it again.")
    stored.refuse_huge(path, header.get_data_shape())
    # Scaled by 1.1, a stored 1 is read as 1.1, which truncated to an integer would match the file's checksum.
    checksum = stored.gzip_sum(path) if _is_compressed(path) and _scaling(header) == (1.0, 0.0) else None
    check_whole = partial(_check_whole, path, header, offset)
    return stored.StoredVoxels(dtype, check_whole, checksum, zlib.crc32, sum_before)


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


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
    raise InputError(f"{path} has the name of a NIfTI file but no NIfTI header. Export it again.")


def _refuse_shift_without_scale(path: Path, header: Nifti1Header) -> None:
    """By the standard a slope of 0 means no scaling; SimpleITK adds the intercept all the same."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    is_scaled = header.get_slope_inter()[0] is not None
    if not is_scaled and intercept != 0 and not np.isnan(intercept):
        raise InputError(
            f"{path} has scl_slope {slope:g}, which means that values are not scaled, and scl_inter {intercept:g}, "
            "which some readers add anyway. Set scl_slope to 1 and scl_inter to 0."
        )


def _scaling(header: Nifti1Header) -> tuple[float, float]:
    slope, intercept = header.get_slope_inter()
    return slope or 1.0, intercept or 0.0


def _check_whole(path: Path, header: Nifti1Header, offset: int, values: np.ndarray | None) -> None:
    """Read the file to its end if it is compressed, or floating-point: SimpleITK may have read NaN as 0."""
    dtype, expected = header.get_data_dtype(), nifti_bytes(header, offset)
    if not _is_compressed(path):
        stored.refuse_truncated(path, path.stat().st_size, expected)
        if dtype.kind != "f":
            return
    with stored.unpacking(path), open_unpacked(path) as file:
        content = file.read(expected)
        # The checksum is compared at the end of the file.
        while file.read(CHUNK_BYTES):
            pass
    stored.refuse_truncated(path, len(content), expected)
    found = np.frombuffer(content, dtype, offset=offset)
    if dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError(f"{path} holds NaN or infinite values; a map holds integers from 0.")
    slope, intercept = _scaling(header)
    if values is not None and not np.array_equal(np.rint(found * slope + intercept), values.ravel()):
        # SimpleITK takes the header from the given file, but the voxels from another file of the same name.
        twin = path.with_suffix("")
        if twin.is_file():
            raise InputError(f"{path} is read with the voxels of {twin.name} next to it. Move one of them elsewhere.")
        raise InputError(f"{path} holds voxels that differ from what its reader returns. Export it again.")
