"""A brain and masks drawn by hand, for the tests of the semi-synthetic cohort."""

import numpy as np
from open_ms.anatomy import RealBrain
from open_ms.filling import Texture

from nnunetv2_conflunet.simulation.anatomy import TISSUES, signed_distance
from nnunetv2_conflunet.simulation.image_grid import Grid

SHAPE = (56, 60, 64)
ORIGIN_MM = (-12.0, -46.0, -32.0)
# Of the ventricles, whose mean index is (27.5, 29.5, 32).
CENTER_MM = (15.5, -16.5, 0.0)


def hand_brain() -> RealBrain:
    """White matter with a box of ventricles in the middle and a bright cube on the right."""
    ventricles = np.zeros(SHAPE, bool)
    ventricles[20:36, 20:40, 27:38] = True
    signal = np.ones(SHAPE, np.float32)
    signal[ventricles] = 0.1
    signal[24:32, 26:34, 48:56] = 1.5
    tissues = {name: np.zeros(SHAPE, np.float32) for name in TISSUES}
    tissues["white"][~ventricles] = tissues["csf"][ventricles] = 1
    return RealBrain(
        grid=Grid(SHAPE, (1.0, 1.0, 1.0), ORIGIN_MM),
        tissues=tissues,
        ventricle_distance_mm=signed_distance(ventricles),
        signal=signal,
        occurrence=np.full((2, *SHAPE), 0.1, np.float32),
        texture=Texture(0.04, 0.5),
    )


def ball(radius: float, size: int = 30) -> np.ndarray:
    """A mask."""
    axis = np.arange(size) - size // 2
    return axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 <= radius**2


def box(*lengths: int) -> np.ndarray:
    """A mask."""
    mask = np.zeros((30, 30, 30), bool)
    mask[tuple(slice(5, 5 + n) for n in lengths)] = True
    return mask
