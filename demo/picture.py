"""Slices of a case beside its instance maps, one colour a lesion."""

import nibabel
import numpy as np
from matplotlib.figure import Figure

from nnunetv2_conflunet.utilities.files import atomic_path

COLOURS = "tab20"
N_COLOURS = 20
# All but its greys, which look like the image.
COLOURFUL = [i for i in range(N_COLOURS) if i not in (14, 15)]
PANEL_INCHES = 3.7


def load(path):
    """Voxels of a NIfTI file, (X, Y, Z)."""
    return np.asarray(nibabel.load(path).dataobj)


def draw_slices(path, image, reference, maps, slices, window=(slice(None), slice(None))):
    """One row a slice: the image, then each map over it with the number of its lesions that are in view.

    Args:
        path: the PNG.
        image: (X, Y, Z).
        reference: (X, Y, Z) ids, by which lesions are coloured: each as the one that it overlaps most.
        maps: (X, Y, Z) ids by their titles.
        slices: indices along Z.
        window: what is shown along X and Y.
    """
    columns = len(maps) + 1
    figure = Figure(figsize=(PANEL_INCHES * columns, (PANEL_INCHES + 0.5) * len(slices)), layout="constrained")
    rows = figure.subplots(len(slices), columns, squeeze=False)
    for row, index in zip(rows, slices, strict=True):
        view = (*window, index)
        for axes, (title, ids) in zip(row, {"FLAIR": None, **maps}.items(), strict=True):
            axes.imshow(image[view].T, cmap="gray", origin="lower", vmin=0, vmax=np.percentile(image[view], 99.8))
            if ids is not None:
                title = f"{title}: {len(np.unique(ids[view][ids[view] > 0]))} lesions"
                axes.imshow(
                    coloured_as(reference[view], ids[view]).T, cmap=COLOURS, origin="lower", vmin=0,
                    vmax=N_COLOURS - 1, alpha=0.75, interpolation="nearest",
                )  # fmt: skip
            axes.set_title(title)
            axes.axis("off")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def coloured_as(reference, ids):
    """Colour numbers of a map: a lesion has that of the reference lesion it overlaps most, if none had it before."""
    colours = np.full(ids.shape, np.nan)
    used = set()
    for i in np.unique(ids[ids > 0]):
        below = np.bincount(reference[ids == i])
        below[0] = 0
        colour = int(below.argmax()) if below.any() else 1000 + i
        if colour in used:
            colour = 1000 + i
        used.add(colour)
        colours[ids == i] = COLOURFUL[colour * 7 % len(COLOURFUL)]
    return colours
