"""The DICOM series that was segmented: its images and its grid."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_conflunet.formats.case_table import read_case_table
from nnunetv2_conflunet.utilities.errors import InputError, list_some

if TYPE_CHECKING:
    from pydicom import Dataset

# Above the rounding of spacings and cosines in headers: a fraction, and cosines.
EVEN_TOLERANCE, COSINE_TOLERANCE = 1e-2, 1e-3
# As a fraction of the distance of slices: above the rounding of positions, and far below a missing slice, one half.
OFF_TOLERANCE = 0.1
# The distance of slices where there is only one.
SINGLE_SLICE_MM = 1.0


@dataclass(frozen=True, eq=False)
class Series:
    """A series of images that form a volume.

    Attributes:
        folder: its folder.
        images: without their pixels: one for each slice, in the order of the grid, or a single multi-frame image.
        shape: numbers of slices, rows and columns.
        affine: (4, 4), index (slice, row, column) -> position in mm, x to the left, y to the back, z to the top (LPS).
    """

    folder: Path
    images: "list[Dataset]"
    shape: tuple[int, int, int]
    affine: np.ndarray


def series_folders(cases: Iterable[str], place: Path) -> dict[str, Path]:
    """The folder of each case's series.

    Args:
        cases: names.
        place: a folder that holds one for each case, or a table with the columns case and series; paths in it are
            relative to its own folder.

    Raises:
        InputError: a folder is missing.
    """
    if place.is_dir():
        found = {case: place / case for case in cases}
    else:
        found = {case: place.parent / row["series"] for case, row in read_case_table(place, cases, ["series"]).items()}
    if missing := [f"{case} ({folder})" for case, folder in found.items() if not folder.is_dir()]:
        raise InputError(f"There is no folder with the DICOM series of {list_some(missing)}.")
    return found


def read_series(folder: Path) -> Series:
    """Read the images of a series, without their pixels (grid: DICOM PS3.3, C.7.6.2.1.1).

    Args:
        folder: holds the series; files that are no images are ignored.

    Raises:
        InputError: there are no images, or of several series, or they are not parallel slices at even distances.
    """
    images = _images(folder)
    with unsuitable(folder):
        planes = [plane for image in images for plane in _planes(image)]
        # (N, 3) positions in mm, (N, 6) cosines of rows and columns, (N, 2) spacings in mm.
        positions, cosines, spacings = (np.array(values, float) for values in zip(*planes, strict=True))
        sizes = {(int(image.Rows), int(image.Columns)) for image in images}
        if spacings.shape[1:] != (2,) or not (spacings > 0).all():
            raise ValueError("PixelSpacing must be two positive numbers")
    if len(images) > 1 and len(planes) > len(images):
        raise InputError(f"{folder} holds several multi-frame images; keep only the one that was segmented.")
    if (
        len(sizes) > 1
        or np.abs(cosines - cosines[0]).max() > COSINE_TOLERANCE
        or not np.allclose(spacings, spacings[0], rtol=EVEN_TOLERANCE)
    ):
        raise InputError(f"The images in {folder} differ in size, spacing or orientation; they form no volume.")
    along_rows, along_columns, spacing = cosines[0, :3], cosines[0, 3:], spacings[0]
    normal = np.cross(along_rows, along_columns)
    order = np.argsort(positions @ normal, kind="stable")
    first, step = _steps(folder, positions[order], normal)
    affine = np.eye(4)
    # Rows follow each other along the columns, and columns along the rows.
    affine[:3] = np.stack([step, along_columns * spacing[0], along_rows * spacing[1], first], axis=1)
    ordered = images if len(images) == 1 else [images[i] for i in order]
    ((rows, columns),) = sizes
    return Series(folder, ordered, (len(planes), rows, columns), affine)


@contextmanager
def unsuitable(folder: Path) -> Iterator[None]:
    """Turn what pydicom and highdicom raise about unusual images into an InputError that names their folder."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The images in {folder} cannot be used ({type(error).__name__}: {error}).") from error


def _images(folder: Path) -> "list[Dataset]":
    """The images in a folder, which must be of one series."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    images: list[Dataset] = []
    for file in sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")):
        try:
            with unsuitable(folder):
                found = dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            continue
        # Not directories of media, reports and other objects.
        if "Rows" in found and "SeriesInstanceUID" in found:
            images.append(found)
    if not images:
        raise InputError(f"{folder} holds no DICOM images; give the folder of the series that was segmented.")
    series = Counter(f"{image.get('SeriesDescription', '')} {image.SeriesInstanceUID}".strip() for image in images)
    if len(series) > 1:
        named = list_some([f"{name} ({n} images)" for name, n in series.items()])
        raise InputError(f"{folder} holds several series: {named}. Keep only the one that was segmented.")
    return images


def _planes(image: "Dataset") -> "list[tuple]":
    """Position, cosines and spacing of each frame of an image."""
    if "PerFrameFunctionalGroupsSequence" not in image:
        return [(image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing)]
    (shared,) = image.SharedFunctionalGroupsSequence

    def of(frame: "Dataset", group: str, name: str) -> list[float]:
        return (frame if group in frame else shared)[group].value[0][name].value

    return [
        (
            of(frame, "PlanePositionSequence", "ImagePositionPatient"),
            of(frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
            of(frame, "PixelMeasuresSequence", "PixelSpacing"),
        )
        for frame in image.PerFrameFunctionalGroupsSequence
    ]


def _steps(folder: Path, positions: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First position of slices and the step between them; `positions` is (N, 3), ascending along `normal`."""
    if len(positions) == 1:
        return positions[0], normal * SINGLE_SLICE_MM
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    distance_mm = float(np.linalg.norm(step))
    if (np.diff(positions @ normal) <= EVEN_TOLERANCE * distance_mm).any():
        raise InputError(
            f"{folder} holds several images of the same slice, such as echoes or time points; leave those that were "
            "segmented."
        )
    off_mm = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, None] * step, axis=1).max()
    if off_mm > OFF_TOLERANCE * distance_mm:
        raise InputError(f"The slices in {folder} are not evenly spaced: they are up to {off_mm:.3g} mm off.")
    if step @ normal < (1 - COSINE_TOLERANCE) * distance_mm:
        raise InputError(f"The slices in {folder} are not stacked at right angles, as with a tilted gantry.")
    return positions[0], step
