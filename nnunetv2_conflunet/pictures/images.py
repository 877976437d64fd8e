"""Images as the background of pictures."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, refuse_other_grid
from nnunetv2_conflunet.imageio.case_folder import channels_of_cases
from nnunetv2_conflunet.utilities.errors import InputError, list_some

Window = tuple[float, float]
# Black and white of a picture, in percent of the image's voxels that are not 0.
WINDOW_PERCENT = 0.5, 99.9
# About so many voxels determine them.
SAMPLE_VOXELS = 200_000


def images_of_cases(folder: Path, cases: Collection[str], file_ending: str) -> dict[str, dict[int, Path]]:
    """The images of some cases, see :func:`.channels_of_cases`.

    Raises:
        InputError: some have none.
    """
    images = channels_of_cases(folder, file_ending)
    found = {case: images.get(case, {}) for case in cases}
    if lacking := [case for case, files in found.items() if not files]:
        raise InputError(
            f"{folder} has no images of {len(lacking)} of {len(found)} cases: {list_some(lacking)}. Expected names "
            f"like {lacking[0]}_0000{file_ending}."
        )
    return found


def read_background(
    files: Mapping[int, Path], channel: int, reader: BaseReaderWriter, map_file: Path, geometry: Geometry
) -> tuple[np.ndarray, Window]:
    """Read one channel of a case, to draw an instance map on it.

    Args:
        files: by channel, at least one; a single file may hold several channels, as RGB does, counted from 0.
        channel: its number, from 0.
        reader: of the dataset.
        map_file: the instance map.
        geometry: its grid.

    Returns:
        (X, Y, Z) float, and the values that are black and white.

    Raises:
        InputError: there is no such channel, or its image cannot be read or is on another grid than the map.
    """
    path = files.get(channel, files[min(files)])
    if not path.is_file():
        raise InputError(f"{path} does not exist; put the image there.")
    try:
        image, properties = reader.read_images((str(path),))
    except Exception as error:
        raise InputError(
            f"{path} cannot be read by {type(reader).__name__} ({type(error).__name__}: {error})."
        ) from error
    has_several = len(files) == 1 and len(image) > 1
    known = list(range(len(image))) if has_several else list(files)
    if channel not in known:
        raise InputError(f"{path.parent} has no channel {channel} of this case; its channels are {list_some(known)}.")
    refuse_other_grid(path, Geometry.from_properties(image.shape[1:], properties), map_file, geometry, reader)
    shown = image[channel if has_several else 0]
    return shown, gray_window(shown)


def gray_window(image: np.ndarray) -> Window:
    """The values that are shown black and white; an image of zeros has none and gives 0 and 1.

    >>> gray_window(np.arange(1001.0))
    (5.995, 999.001)
    """
    step = max(1, int((image.size / SAMPLE_VOXELS) ** (1 / 3)))
    sample = image[tuple(slice(None, None, step if n > step else 1) for n in image.shape)]
    sample = sample[(sample != 0) & np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = np.percentile(sample, WINDOW_PERCENT)
    return round(float(low), 6), round(float(high), 6)
