"""The MNI152 template and tissue maps in nilearn's wheel."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cc3d
import nibabel
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.simulation.anatomy import TISSUES, Head, signed_distance
from nnunetv2_conflunet.simulation.image_grid import Grid, enlarged, triple
from nnunetv2_conflunet.utilities.errors import InputError

FILES = {name: f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("t1", "gm", "wm")}
# Averaging 152 brains blurs tissue borders; probabilities raised to this power, normalized, look like a single brain.
SHARPENING = 2.5
# Averaging also closes the sulci, which vary most between brains; this weight reopens them.
CSF_WEIGHT = 3.0
# Fluid deeper in the brain than this belongs to the ventricles or to midline cisterns.
VENTRICLE_DEPTH_MM = 25.0
# Margin in voxels around the brain, for smoothing and sampling near its border.
MARGIN = 8


def template_folder() -> Path:
    """Folder of the MNI152 files in the installed nilearn, which is not imported itself.

    Raises:
        InputError: nilearn is not installed, or its wheel lacks the files.
    """
    command = "pip install 'nilearn>=0.10,<0.14'"
    specification = find_spec("nilearn")
    if specification is None or specification.origin is None:
        raise InputError(f"The simulation takes its brain anatomy from nilearn, which is not installed: {command}")
    folder = Path(specification.origin).parent / "datasets" / "data"
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}, which this version provides: {command}")
    return folder


@cache
def load_templates() -> Head:
    """Read the maps and derive tissues and ventricles; takes a few seconds, once per process.

    Returns:
        The template's head, cropped to its brain, on a 1 mm grid in MNI space.

    Raises:
        InputError: see :func:`template_folder`.
    """
    folder = template_folder()
    images = {key: nibabel.Nifti1Image.from_filename(folder / name) for key, name in FILES.items()}
    t1, gray, white = (
        np.ascontiguousarray(np.asanyarray(images[key].dataobj).transpose(2, 1, 0), dtype=np.float32) / 255
        for key in ("t1", "gm", "wm")
    )
    brain = ndimage.binary_fill_holes(t1 > 0)
    # A box slightly larger than the brain saves a third of the work.
    box = enlarged(ndimage.find_objects(brain.view(np.uint8))[0], MARGIN)
    brain, white, gray = brain[box], white[box], gray[box]
    origin = (images["t1"].affine[2 - axis, 3] + box[axis].start for axis in range(3))
    grid = Grid(brain.shape, (1.0, 1.0, 1.0), triple(origin))
    tissues = _tissues(white, gray, brain, grid)
    ventricles = _lateral_ventricles(tissues["csf"] > 0.5, brain)
    return Head(grid, tissues, signed_distance(ventricles))


def _tissues(white: np.ndarray, gray: np.ndarray, brain: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Fractions of the four tissues, each (Z, Y, X) float32."""
    csf = np.clip(1 - white - gray, 0, 1)
    shares = np.stack([gray, white, csf]) ** SHARPENING * brain
    shares[2] *= CSF_WEIGHT
    shares /= np.maximum(shares.sum(axis=0), 1e-6)
    # Thalamus and basal ganglia: the gray matter in an ellipsoid around the third ventricle.
    z, y, x = grid.axes_mm()
    radius = np.sqrt(((z[:, None, None] - 3) / 17) ** 2 + ((y[:, None] + 5) / 34) ** 2 + (x / 35) ** 2)
    deep = 1 / (1 + np.exp((radius - 1) / 0.08))
    gray, white, csf = shares
    return dict(zip(TISSUES, np.stack([gray * (1 - deep), gray * deep, white, csf]).astype(np.float32), strict=True))


def _lateral_ventricles(csf: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The largest connected part of the fluid deep inside the brain."""
    # Every second voxel suffices for a depth accurate to 2 mm, in an eighth of the time.
    depth_mm = 2 * ndimage.distance_transform_edt(brain[::2, ::2, ::2])
    for axis, length in enumerate(brain.shape):
        depth_mm = np.repeat(depth_mm, 2, axis=axis).take(np.arange(length), axis=axis)
    return cc3d.largest_k(csf & (depth_mm > VENTRICLE_DEPTH_MM), k=1, connectivity=6) > 0
