"""The MNI152 template and tissue maps that are part of nilearn's wheel."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cc3d
import nibabel
import numpy as np
from scipy import ndimage

from nnunetv2_conflunet.utilities.errors import InputError

FILES = {
    "t1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "gm": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "wm": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}
TISSUES = "cortex", "deep_gray", "white", "csf"
# Averaging 152 brains blurs the tissue borders; the probabilities to this power, normalized, look like one brain.
SHARPENING = 2.5
# The same averaging closes the sulci, which differ most between brains; this opens them.
CSF_WEIGHT = 3.0
# Fluid deeper in the brain than this belongs to the ventricles or to the cisterns of the midline.
VENTRICLE_DEPTH_MM = 25.0


@dataclass(frozen=True)
class Templates:
    """Maps in MNI space on a 1 mm grid, arrays in (z, y, x) order.

    Attributes:
        tissues: (4, Z, Y, X) float32 in [0, 1], the shares of :data:`TISSUES`; they sum to 1 in the brain, else to 0.
        ventricle_distance_mm: (Z, Y, X) float32, distance to the surface of the lateral ventricles, negative inside.
        ventricle_push: (3, Z, Y, X) float32, unit vectors away from the ventricles, fading with the distance.
        origin_mm: world position of voxel (0, 0, 0), (z, y, x).
        brain_mm: lowest and highest world position of the brain, ((z, y, x), (z, y, x)).
        ventricle_center_mm: center of mass of the lateral ventricles, (z, y, x).
    """

    tissues: np.ndarray
    ventricle_distance_mm: np.ndarray
    ventricle_push: np.ndarray
    origin_mm: tuple[float, float, float]
    brain_mm: tuple[tuple[float, ...], tuple[float, ...]]
    ventricle_center_mm: tuple[float, float, float]


def template_folder() -> Path:
    """Folder of the installed nilearn that holds the MNI152 files; nilearn itself is not imported.

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
        raise InputError(f"{folder} lacks {', '.join(missing)}, files of the versions that this installs: {command}")
    return folder


@cache
def load_templates() -> Templates:
    """Read the maps and derive the tissues and the ventricles; takes a few seconds once a process.

    Raises:
        InputError: see :func:`template_folder`.
    """
    folder = template_folder()
    maps, affine = {}, None
    for key, name in FILES.items():
        image = nibabel.load(folder / name)
        maps[key] = np.ascontiguousarray(np.asanyarray(image.dataobj).transpose(2, 1, 0), dtype=np.float32) / 255
        affine = image.affine
    brain = ndimage.binary_fill_holes(maps["t1"] > 0)
    # One box a little larger than the brain saves a third of the work.
    box = ndimage.find_objects(brain.view(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 8), s.stop + 8) for s in box)
    brain, white, gray = brain[box], maps["wm"][box], maps["gm"][box]
    origin = tuple(float(affine[2 - axis, 3] + box[axis].start) for axis in range(3))
    tissues = _tissues(white, gray, brain, origin)
    ventricles = _lateral_ventricles(tissues[TISSUES.index("csf")] > 0.5, brain)
    distance = signed_distance(ventricles)
    inside = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return Templates(
        tissues=tissues,
        ventricle_distance_mm=distance,
        ventricle_push=push_away(distance),
        origin_mm=origin,
        brain_mm=(
            tuple(o + float(i[0]) for o, i in zip(origin, inside, strict=True)),
            tuple(o + float(i[-1]) for o, i in zip(origin, inside, strict=True)),
        ),
        ventricle_center_mm=tuple(
            float(o + c) for o, c in zip(origin, ndimage.center_of_mass(ventricles), strict=True)
        ),
    )


def _tissues(white: np.ndarray, gray: np.ndarray, brain: np.ndarray, origin_mm: tuple[float, ...]) -> np.ndarray:
    """Shares of the four tissues, (4, Z, Y, X) float32."""
    csf = np.clip(1 - white - gray, 0, 1)
    shares = np.stack([gray, white, csf]) ** SHARPENING * brain
    shares[2] *= CSF_WEIGHT
    shares /= np.maximum(shares.sum(axis=0), 1e-6)
    # Thalamus and basal ganglia: the gray matter in an ellipsoid around the third ventricle.
    z, y, x = (o + np.arange(n) for o, n in zip(origin_mm, brain.shape, strict=True))
    radius = np.sqrt(
        ((z[:, None, None] - 3) / 17) ** 2 + ((y[None, :, None] + 5) / 34) ** 2 + (x[None, None, :] / 35) ** 2
    )
    deep = 1 / (1 + np.exp((radius - 1) / 0.08))
    gray = shares[0]
    return np.stack([gray * (1 - deep), gray * deep, shares[1], shares[2]]).astype(np.float32)


def _lateral_ventricles(csf: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The largest connected part of the fluid deep inside the brain."""
    # Every second voxel is enough to know the depth to 2 mm, in an eighth of the time.
    depth_mm = 2 * ndimage.distance_transform_edt(brain[::2, ::2, ::2])
    for axis, length in enumerate(brain.shape):
        depth_mm = np.repeat(depth_mm, 2, axis=axis).take(np.arange(length), axis=axis)
    return cc3d.largest_k(csf & (depth_mm > VENTRICLE_DEPTH_MM), k=1, connectivity=6) > 0


def push_away(distance_mm: np.ndarray) -> np.ndarray:
    """Unit vectors away from a structure, fading with the distance.

    Args:
        distance_mm: (Z, Y, X) float32, signed distance to its surface on a 1 mm grid.

    Returns:
        (3, Z, Y, X) float32.
    """
    smooth = ndimage.gaussian_filter(distance_mm, 2.0)
    return (np.stack(np.gradient(smooth)) * np.exp(-np.abs(smooth) / 12.0)).astype(np.float32)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Distance to the surface of a mask, which is not empty, in voxels, negative inside, (Z, Y, X) float32."""
    distance = ndimage.distance_transform_edt(~mask).astype(np.float32)
    box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in ndimage.find_objects(mask.view(np.uint8))[0])
    distance[box] -= ndimage.distance_transform_edt(mask[box]).astype(np.float32)
    return distance
