"""Whether a map lies on the grid of a DICOM series, with its axes in any order."""

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from nnunetv2_conflunet.formats.dicom_series import Series
from nnunetv2_conflunet.formats.lesions import CaseLesions
from nnunetv2_conflunet.imageio.geometry import LPS_TO_RAS, TOLERANCE
from nnunetv2_conflunet.utilities.errors import InputError

# What the axes of a series are called in DICOM: the number of voxels, and their distance.
COUNTS = ("slices", "Rows", "Columns")
SPACINGS = ("slice spacing", "PixelSpacing between rows", "PixelSpacing between columns")


def on_series_grid(lesions: CaseLesions, series: Series) -> np.ndarray:
    """The map with the axes of a series. They are exchanged or reversed; nothing is resampled.

    Returns:
        (slices, rows, columns), the ids.

    Raises:
        InputError: the map does not lie on the grid of the series; names each attribute that differs, and by how much.
    """
    if not lesions.has_position:
        raise InputError("Its file format (such as PNG or TIFF) does not say where the voxels are; use NIfTI or NRRD.")
    affine = np.eye(4)
    affine[:3] = LPS_TO_RAS @ lesions.affine[:3]
    orientation = io_orientation(np.linalg.inv(series.affine) @ affine)
    turned = apply_orientation(lesions.ids, orientation)
    found = grid_differences(
        turned.shape, affine @ inv_ornt_aff(orientation, lesions.ids.shape), series.shape, series.affine
    )
    if found:
        raise InputError(
            f"The map does not lie on the grid of the series in {series.folder}: {'; '.join(found)}. Give the series "
            "from which the image was converted without resampling or cropping."
        )
    return turned


def grid_differences(
    shape: tuple[int, ...], affine: np.ndarray, series_shape: tuple[int, ...], series_affine: np.ndarray
) -> list[str]:
    """What differs between the grid of a map and that of a series beyond rounding, in the words of DICOM.

    Args:
        shape: slices, rows and columns of the map.
        affine: (4, 4), index (slice, row, column) -> position in mm.
        series_shape: of the series.
        series_affine: of the series.

    >>> grid_differences((2, 3, 4), np.diag([2, 1, 1, 1]), (2, 3, 5), np.diag([3, 1, 1, 1]))
    ['Columns 4 instead of 5', 'slice spacing 2 mm instead of 3 mm']
    """
    origin_tolerance, spacing_tolerance, direction_tolerance = TOLERANCE
    sizes = zip(COUNTS, shape, series_shape, strict=True)
    found = [f"{name} {mine} instead of {theirs}" for name, mine, theirs in sizes if mine != theirs]
    spacing, series_spacing = (np.linalg.norm(one[:3, :3], axis=0) for one in (affine, series_affine))
    for name, n, mine, theirs in zip(SPACINGS, series_shape, spacing, series_spacing, strict=True):
        # A single slice has none next to it.
        if n > 1 and abs(mine - theirs) > spacing_tolerance * theirs:
            found.append(f"{name} {mine:.6g} mm instead of {theirs:.6g} mm")
    cosines = np.sum(affine[:3, :3] / spacing * (series_affine[:3, :3] / series_spacing), axis=0)
    angle = float(np.arccos(np.clip(cosines.min(), -1, 1)))
    if angle > direction_tolerance:
        found.append(f"ImageOrientationPatient turned by {np.degrees(angle):.3g} degrees")
    shift = affine[:3, 3] - series_affine[:3, 3]
    if np.abs(shift).max() > origin_tolerance * series_spacing.min():
        away = ", ".join(f"{value:.4g}" for value in shift)
        found.append(f"ImagePositionPatient {np.linalg.norm(shift):.4g} mm away (x, y, z: {away})")
    return found
