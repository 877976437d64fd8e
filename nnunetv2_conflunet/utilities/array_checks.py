"""Checks of function arguments: each returns the checked value, or raises an InputError that names it."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from nnunetv2_conflunet.utilities.errors import InputError

# Probabilities are sums of float32 softmax outputs, which may exceed 1 by rounding.
PROBABILITY_TOLERANCE = 1e-4
Connectivity = Literal[4, 6, 8, 18, 26]
CONNECTIVITIES: dict[int, tuple[Connectivity, ...]] = {3: (6, 18, 26), 2: (4, 8)}
# The 2D equivalent of each 3D connectivity.
IN_THE_PLANE: dict[int, Connectivity] = {6: 4, 18: 8, 26: 8}


def flat_axes(ndim: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Axes to leave out: the first one of a 2D image in nnU-Net's order, (1, Y, X); none of any other image.

    >>> flat_axes(3, (1, 5, 6)), flat_axes(3, (4, 5, 6)), flat_axes(2, (1, 6))
    ((0,), (), ())
    """
    return (0,) if ndim == 3 and shape[0] == 1 else ()


def check_mask(mask: np.ndarray, name: str) -> np.ndarray:
    """`mask` as (X, Y, Z) or (Y, X) bool; True where it is not zero.

    Raises:
        InputError: the number of axes is wrong, or values are not whole numbers.
    """
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3):
        raise InputError(f"{name} has shape {mask.shape}; it must have two or three axes, without a channel axis.")
    if mask.dtype == bool:
        return mask
    if not np.issubdtype(mask.dtype, np.integer) and not (
        np.issubdtype(mask.dtype, np.floating) and np.array_equal(mask, np.rint(mask))
    ):
        raise InputError(f"{name} ({mask.dtype}) holds values that are not whole numbers; threshold it first.")
    return mask != 0


def check_spacing(spacing_mm: Sequence[float], ndim: int) -> np.ndarray:
    """`spacing_mm` as (ndim,) float64.

    Raises:
        InputError: the length differs from the number of axes, or values are not positive and finite.

    >>> check_spacing((3, 0.5, 0.5), ndim=3)
    array([3. , 0.5, 0.5])
    """
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (ndim,):
        raise InputError(f"spacing_mm {spacing_mm} must hold one value for each of the {ndim} axes of the image.")
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputError(f"spacing_mm {tuple(map(float, spacing))} must hold positive numbers.")
    return spacing


def check_shape(array: np.ndarray, shape: Sequence[int], name: str, other: str) -> np.ndarray:
    """`array`, which must have the shape of the array named `other`."""
    array = np.asarray(array)
    if array.shape != tuple(shape):
        raise InputError(
            f"{name} has shape {array.shape} but {other} has {tuple(shape)}; both must be on the same grid."
        )
    return array


def check_probability(probability: np.ndarray) -> np.ndarray:
    """`probability`, an array of values in [0, 1].

    Raises:
        InputError: NaN or infinite values, values outside [0, 1], or an array that has neither two nor three axes.
    """
    probability = np.asarray(probability)
    if probability.ndim not in (2, 3):
        raise InputError(
            f"probability has shape {probability.shape}; it must have two or three axes: sum the foreground channels."
        )
    lowest, highest = (probability.min(), probability.max()) if probability.size else (0, 0)
    # Written so that NaN fails as well.
    if not (lowest >= -PROBABILITY_TOLERANCE and highest <= 1 + PROBABILITY_TOLERANCE):
        raise InputError(
            f"probability ranges from {lowest:g} to {highest:g}; it must lie in [0, 1]: pass the softmax, not logits."
        )
    return probability


def check_finite(array: np.ndarray, name: str) -> np.ndarray:
    """`array`, which must hold neither NaN nor infinite values."""
    # If any value is not finite, neither is the sum, which needs no temporary array. A finite array may overflow, too.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float32 if array.dtype == np.float16 else None)
    if not np.isfinite(total) and not np.isfinite(array).all():
        raise InputError(
            f"{name} holds {np.count_nonzero(~np.isfinite(array))} NaN or infinite values; either its image "
            "holds some, too, or the network has diverged or overflowed."
        )
    return array


def is_number(value: object) -> bool:
    """Whether `value` is a single number; a bool is not."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def check_positive(value: float, name: str) -> float:
    """`value`, which must be a positive finite number."""
    if not is_number(value) or not 0 < value < np.inf:
        raise InputError(f"{name} is {value!r}; it must be a positive number.")
    return value


def check_not_negative(value: float, name: str) -> float:
    """`value`, which must be finite and not negative."""
    if not is_number(value) or not 0 <= value < np.inf:
        raise InputError(f"{name} is {value!r}; it must be 0 or a positive number.")
    return value


def check_share(value: float, name: str) -> float:
    """`value`, which must be a number of at least 0 and below 1."""
    if not is_number(value) or not 0 <= value < 1:
        raise InputError(f"{name} is {value!r}; it must be at least 0 and below 1.")
    return value


def check_connectivity(connectivity: int, ndim: int) -> Connectivity:
    """The connectivity for an image of `ndim` axes; in 2D, 6 means 4, and 18 and 26 mean 8.

    Raises:
        InputError: it is not one of 6, 18, 26 (4, 8 in 2D).

    >>> check_connectivity(26, ndim=2)
    8
    """
    wanted = connectivity if ndim == 3 else IN_THE_PLANE.get(connectivity, connectivity)
    found = next((known for known in CONNECTIVITIES[ndim] if known == wanted), None)
    if found is None:
        known = ", ".join(map(str, CONNECTIVITIES[ndim]))
        raise InputError(f"connectivity is {connectivity!r}; it must be one of {known}.")
    return found
