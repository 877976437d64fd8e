"""Border-core: lesions as two semantic classes, their cores and their borders, and back.

The representation with which nnU-Net's authors separate touching objects (Gotkowski et al., ParticleSeg3D, Powder
Technology 2024). Encoding makes the labels of a training, decoding makes instances of its prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.postprocessing.baselines.depth import DepthBox
from nnunetv2_conflunet.postprocessing.baselines.seeds import assign_to_nearest_seed
from nnunetv2_conflunet.postprocessing.pieces import Assignment
from nnunetv2_conflunet.postprocessing.voxels import Voxels, groups
from nnunetv2_conflunet.utilities.array_checks import check_positive, check_spacing, flat_axes
from nnunetv2_conflunet.utilities.options import option

CORE, BORDER = 1, 2
LABELS = {"background": 0, "core": CORE, "border": BORDER}
# nnU-Net's ignore label is the highest one.
IGNORE = 3
# Distances are sums of float spacings: a border includes voxels this much deeper, as a share of its thickness.
ROUNDING = 1e-5


@dataclass(frozen=True)
class BorderCoreSettings:
    """How lesions are turned into cores and borders.

    Attributes:
        thickness_mm: voxels whose center lies at most this far from the nearest voxel outside their lesion are border.

    Raises:
        InputError: a thickness that is not a positive number.

    >>> BorderCoreSettings().thickness_mm
    1.0
    """

    thickness_mm: float = option(1.0, "thickness in mm of the border of each lesion, at least one voxel")

    def __post_init__(self):
        check_positive(self.thickness_mm, "thickness_mm")


@dataclass(frozen=True, eq=False)
class BorderCore:
    """The lesions of an image as cores and borders.

    Attributes:
        labels: uint8, shape of the instances: 0 background, 1 core, 2 border.
        n_lesions: connected pieces of instances.
        n_thin: those too thin for a border, which keep their innermost voxels as core.
        n_split: those whose core is in several pieces, which decoding takes for several lesions.
        deepest_mm: distance of the innermost voxel of all from the nearest voxel outside its lesion.
    """

    labels: np.ndarray
    n_lesions: int
    n_thin: int
    n_split: int
    deepest_mm: float

    @classmethod
    def of(
        cls, instances: np.ndarray, spacing_mm: Sequence[float], settings: BorderCoreSettings | None = None
    ) -> "BorderCore":
        """Turn instances into cores and borders.

        The border of a lesion are its voxels that lie within `thickness_mm` of a voxel outside of it, be it background
        or another lesion; along an axis with larger voxels it is one voxel thick. The others are its core. A lesion
        without others keeps its innermost voxels as core: the largest group connected by faces of those that lie
        deepest, of equally large ones the first in C order. What lies beyond the border of the image is
        not known, so a lesion that it cuts has no border there. An instance in several pieces (26 neighbors, in a plane
        8) counts as several lesions. For equal spacing along all axes and lesions with a core, these are the labels of
        ``acvl_utils``, which ParticleSeg3D uses.

        Args:
            instances: (X, Y, Z), (1, Y, X) or (Y, X) integers, 0 is background.
            spacing_mm: voxel size in mm along each axis.
            settings: the thickness; None takes the default.

        Raises:
            InputError: a spacing of another length or not positive.

        >>> BorderCore.of(np.array([[0, 1, 1, 1, 2, 2, 2, 0]]), (1.0, 1.0)).labels
        array([[0, 2, 1, 2, 2, 1, 2, 0]], dtype=uint8)
        """
        thickness_mm = (settings or BorderCoreSettings()).thickness_mm
        spacing = check_spacing(spacing_mm, instances.ndim)
        flat = len(flat_axes(instances.ndim, instances.shape))
        ids, spacing = (instances[0] if flat else instances), spacing[flat:]
        voxels = Voxels.of(ids != 0)
        lesion = voxels.components(3**voxels.dim - 1, ids[tuple(voxels.coordinates.T)])
        is_core, n_thin, n_split, deepest_mm = np.zeros(len(voxels), bool), 0, 0, 0.0
        # An axis with larger voxels counts as if they were as large as the border is thick.
        sampling = np.minimum(spacing, thickness_mm)
        for _, members in groups(lesion):
            coordinates = voxels.coordinates[members]
            depth_mm = DepthBox.of(coordinates, ids.shape, sampling).of_voxels
            deep = depth_mm > thickness_mm * (1 + ROUNDING)
            is_thin = not deep.any()
            if is_thin:
                deep = depth_mm >= depth_mm.max() * (1 - ROUNDING)
            piece = _cores(Voxels(coordinates[deep]))
            if is_thin:
                deep[deep] = piece == np.bincount(piece).argmax()
            n_thin += int(is_thin)
            n_split += int(not is_thin and piece.max() > 1)
            deepest_mm = max(deepest_mm, float(depth_mm.max()))
            is_core[members] = deep
        labels = np.zeros(ids.shape, np.uint8)
        labels[tuple(voxels.coordinates.T)] = np.where(is_core, CORE, BORDER)
        return cls(labels.reshape(instances.shape), int(lesion.max(initial=0)), n_thin, n_split, deepest_mm)


def _cores(voxels: Voxels) -> np.ndarray:
    """(N,) 1..K, the core that each core voxel belongs to.

    Connected by faces: along a diagonal boundary, a border of one voxel leaves the corners of two cores in touch.
    """
    return voxels.components(2 * voxels.dim)


def has_cores(labels: dict) -> bool:
    """Whether the labels of a dataset.json are those of cores and borders; an ignore label may be among them.

    >>> has_cores({"background": 0, "core": 1, "border": 2}), has_cores({"background": 0, "lesion": 1})
    (True, False)
    """
    return LABELS.items() <= labels.items() <= (LABELS | {"ignore": IGNORE}).items()


def core_mask(segmentation: np.ndarray, labels: dict) -> np.ndarray | None:
    """Where a segmentation with these labels has cores; None if they are others.

    >>> core_mask(np.array([[0, 2, 1]]), LABELS)
    array([[False, False,  True]])
    """
    return segmentation == CORE if has_cores(labels) else None


def assign_by_cores(voxels: Voxels, component: np.ndarray, is_core: np.ndarray, spacing_mm: np.ndarray) -> Assignment:
    """Centers are the cores, connected by faces; a border voxel goes to the nearest core voxel of its component, in mm.

    Cores are numbered in the order in which their first voxels come; a tie goes to the lowest number. A component
    without a core has no center.

    Args:
        voxels: the foreground, cores and borders.
        component: (N,) its connected components, see :meth:`Voxels.components`.
        is_core: (N,) bool.
        spacing_mm: (dim,) voxel size.

    >>> voxels, is_core = Voxels.of(np.ones((1, 5), bool)), np.array([True, False, False, True, False])
    >>> assign_by_cores(voxels, np.ones(5, int), is_core, np.ones(2)).center
    array([1, 1, 2, 2, 2])
    """
    cores = _cores(Voxels(voxels.coordinates[is_core]))
    return assign_to_nearest_seed(voxels, component, spacing_mm, np.flatnonzero(is_core), cores, inside_component=True)
