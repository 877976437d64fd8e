"""Slices of a case next to its instance maps, one color per lesion, for the demo and the experiments."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_conflunet.utilities.files import atomic_path

COLORS = "tab20"
N_COLORS = 20
# All colors but the grays, which look like the image.
COLORFUL = [number for number in range(N_COLORS) if number not in (14, 15)]
PANEL_INCHES = 3.7
# Color numbers of lesions without a reference color start here.
UNMATCHED = 1000


def load_voxels(path: str | os.PathLike) -> np.ndarray:
    """Voxels of a NIfTI file, (X, Y, Z)."""
    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)


def draw_slices(
    path: Path,
    image: np.ndarray,
    reference: np.ndarray,
    maps: Mapping[str, np.ndarray],
    slices: Sequence[int],
    window: tuple[slice, slice] = (slice(None), slice(None)),
) -> None:
    """One row per slice: the image, then each map as an overlay, with its number of lesions in view.

    Args:
        path: the PNG.
        image: (X, Y, Z).
        reference: (X, Y, Z) ids for the colors: each lesion is colored like the reference lesion it overlaps most.
        maps: title -> (X, Y, Z) ids.
        slices: indices along Z.
        window: the part shown along X and Y.
    """
    columns = len(maps) + 1
    figure = Figure(figsize=(PANEL_INCHES * columns, (PANEL_INCHES + 0.5) * len(slices)), layout="constrained")
    rows = figure.subplots(len(slices), columns, squeeze=False)
    for row, z in zip(rows, slices, strict=True):
        view = (*window, z)
        for axes, (title, ids) in zip(row, {"FLAIR": None, **maps}.items(), strict=True):
            axes.imshow(image[view].T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(image[view], 99.8))
            if ids is not None:
                title = f"{title}: {len(np.unique(ids[view][ids[view] > 0]))} lesions"
                axes.imshow(
                    colored_as(reference[view], ids[view]).T, cmap=COLORS, origin="lower", vmin=0,
                    vmax=N_COLORS - 1, alpha=0.75, interpolation="nearest",
                )  # fmt: skip
            axes.set_title(title)
            axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def colored_as(reference: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Color numbers of a map: each lesion gets that of the reference lesion it overlaps most, unless already used.

    Returns:
        Numbers of :data:`COLORS`, NaN outside the lesions, shaped like `ids`.

    Example:
        >>> colored_as(np.array([1, 1, 0, 2]), np.array([7, 7, 0, 9])).tolist()
        [7.0, 7.0, nan, 16.0]
    """
    colors = np.full(ids.shape, np.nan)
    used = set()
    for label in np.unique(ids[ids > 0]):
        below = np.bincount(reference[ids == label])
        below[0] = 0
        color = int(below.argmax()) if below.any() else UNMATCHED + label
        if color in used:
            color = UNMATCHED + label
        used.add(color)
        colors[ids == label] = COLORFUL[color * 7 % len(COLORFUL)]
    return colors
