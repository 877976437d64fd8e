"""All overlaps of two instance maps, in one pass over their voxels."""

from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.utilities.errors import InputError

# Two ids are combined into one 64-bit key.
FIRST_TOO_LARGE_ID = 2**31
# Voxels processed at a time, so that temporary masks stay in the processor's cache.
CHUNK_VOXELS = 2**18


@dataclass(frozen=True, eq=False)
class Foreground:
    """The voxels that are foreground in either map.

    Attributes:
        shape: of the maps.
        coordinates: (V, ndim) int64, array indices of these voxels, in C order.
        prediction: (V,) int64, predicted id at each of them, 0 is background.
        reference: (V,) int64, reference id at each of them.
    """

    shape: tuple[int, ...]
    coordinates: np.ndarray
    prediction: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(cls, prediction: np.ndarray, reference: np.ndarray) -> "Foreground":
        """Collect the foreground of two maps.

        Args:
            prediction: (X, Y) or (X, Y, Z), ids as integers or integral floats, 0 is background.
            reference: the same shape, its own ids.

        Raises:
            InputError: shapes differ or are not two- or three-dimensional; ids are NaN, infinite, negative, fractional
                or at least 2**31; or arrays are not numeric.

        >>> Foreground.of(np.array([[5, 5, 0, 0]]), np.array([[0, 7, 7, 0]])).coordinates.tolist()
        [[0, 0], [0, 1], [0, 2]]
        """
        prediction, reference = np.asarray(prediction), np.asarray(reference)
        if prediction.shape != reference.shape:
            raise InputError(
                f"The prediction has shape {prediction.shape} and the reference {reference.shape}; both must be on "
                "the same grid. Resample the prediction to the reference by nearest neighbor."
            )
        if prediction.ndim not in (2, 3):
            raise InputError(f"Instance maps have two or three axes, not shape {prediction.shape}.")
        for side, instances in (("prediction", prediction), ("reference", reference)):
            if instances.dtype.kind not in "biuf":
                raise InputError(f"The {side} is an array of {instances.dtype}; ids are integers.")
        if all(side.flags.f_contiguous and not side.flags.c_contiguous for side in (prediction, reference)):
            # Maps in Fortran order, as from nibabel, are read in that order, which is many times faster.
            transposed = cls.of(prediction.T, reference.T)
            coordinates = transposed.coordinates[:, ::-1]
            order = np.argsort(np.ravel_multi_index(tuple(coordinates.T), prediction.shape))
            return cls(prediction.shape, coordinates[order], transposed.prediction[order], transposed.reference[order])
        positions, predicted, referred = _collect(prediction, reference)
        coordinates = np.stack(np.unravel_index(positions, prediction.shape), axis=1)
        ids = _checked_ids(predicted, "prediction"), _checked_ids(referred, "reference")
        return cls(prediction.shape, coordinates, *ids)


@dataclass(frozen=True, eq=False)
class OverlapTable:
    """Sizes of all instances, and the number of voxels shared by each pair of instances.

    Instances are addressed by their index in `prediction_ids` and `reference_ids`, both ascending. Only pairs that
    share voxels are listed, sorted by prediction, then reference.

    Attributes:
        prediction_ids: (P,) int64.
        prediction_voxels: (P,) int64, size of each predicted instance.
        reference_ids: (R,) int64.
        reference_voxels: (R,) int64.
        pair_prediction: (K,) int64, index of the prediction of each pair.
        pair_reference: (K,) int64, index of its reference.
        pair_voxels: (K,) int64, voxels in both.
    """

    prediction_ids: np.ndarray
    prediction_voxels: np.ndarray
    reference_ids: np.ndarray
    reference_voxels: np.ndarray
    pair_prediction: np.ndarray
    pair_reference: np.ndarray
    pair_voxels: np.ndarray

    @classmethod
    def of(cls, foreground: Foreground) -> "OverlapTable":
        """Count the joint histogram of the foreground.

        >>> table = OverlapTable.of(Foreground.of(np.array([[5, 5, 0, 0]]), np.array([[0, 7, 7, 7]])))
        >>> table.prediction_voxels, table.reference_voxels, table.pair_iou
        (array([2]), array([3]), array([0.25]))
        """
        base = int(foreground.reference.max(initial=0)) + 1
        keys = foreground.prediction * base + foreground.reference
        # Smaller dtypes are sorted faster.
        keys, voxels = np.unique(keys.astype(np.min_scalar_type(keys.max(initial=0))), return_counts=True)
        predicted, referred = np.divmod(keys.astype(np.int64), base)
        prediction_ids, prediction_voxels, prediction_index = _sizes(predicted, voxels)
        reference_ids, reference_voxels, reference_index = _sizes(referred, voxels)
        pairs = (predicted > 0) & (referred > 0)
        return cls(
            prediction_ids,
            prediction_voxels,
            reference_ids,
            reference_voxels,
            prediction_index[pairs],
            reference_index[pairs],
            voxels[pairs],
        )

    def swapped(self) -> "OverlapTable":
        """The table with the roles of the maps exchanged; its pairs keep their order."""
        return OverlapTable(
            self.reference_ids,
            self.reference_voxels,
            self.prediction_ids,
            self.prediction_voxels,
            self.pair_reference,
            self.pair_prediction,
            self.pair_voxels,
        )

    def of_references(self, chosen: np.ndarray) -> "OverlapTable":
        """The table of all predictions and some references, `chosen` by (R,) bool."""
        pairs = chosen[self.pair_reference]
        return OverlapTable(
            self.prediction_ids,
            self.prediction_voxels,
            self.reference_ids[chosen],
            self.reference_voxels[chosen],
            self.pair_prediction[pairs],
            (np.cumsum(chosen) - 1)[self.pair_reference[pairs]],
            self.pair_voxels[pairs],
        )

    def of_predictions(self, chosen: np.ndarray) -> "OverlapTable":
        """The table of some predictions, `chosen` by (P,) bool, and all references.

        >>> table = OverlapTable.of(Foreground.of(np.array([[5, 6]]), np.array([[7, 7]])))
        >>> table.of_predictions(np.array([False, True])).prediction_ids
        array([6])
        """
        return self.swapped().of_references(chosen).swapped()

    @property
    def pair_iou(self) -> np.ndarray:
        """(K,) float64, intersection over union of each pair."""
        return self.pair_voxels / (self._pair_sizes - self.pair_voxels)

    @property
    def pair_dice(self) -> np.ndarray:
        """(K,) float64, Dice coefficient of each pair."""
        return 2 * self.pair_voxels / self._pair_sizes

    @property
    def _pair_sizes(self) -> np.ndarray:
        return self.prediction_voxels[self.pair_prediction] + self.reference_voxels[self.pair_reference]


def _sizes(ids: np.ndarray, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids other than background, ascending, their sizes, and for each entry the index of its id."""
    found, index = np.unique(ids, return_inverse=True)
    total = np.bincount(index, voxels, len(found)).astype(np.int64)
    # Background, where present, is the first id.
    skip = int(0 in found[:1])
    return found[skip:], total[skip:], index - skip


def _collect(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in C order where either map is not 0, and the values of both there."""
    # Slab by slab, so that temporary masks stay small.
    slab_voxels = int(np.prod(first.shape[1:]))
    step = max(1, CHUNK_VOXELS // max(1, slab_voxels))
    parts = [(np.zeros(0, np.int64), np.zeros(0, first.dtype), np.zeros(0, second.dtype))]
    for start in range(0, first.shape[0], step):
        slabs = first[start : start + step], second[start : start + step]
        within = np.flatnonzero((slabs[0] != 0) | (slabs[1] != 0))
        if within.size:
            parts.append((within + start * slab_voxels, slabs[0].ravel()[within], slabs[1].ravel()[within]))
    positions, of_first, of_second = map(np.concatenate, zip(*parts, strict=True))
    return positions, of_first, of_second


def _checked_ids(values: np.ndarray, side: str) -> np.ndarray:
    """Ids as int64, or an error that says why the values are not ids."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise InputError(f"The {side} holds NaN or infinite values; ids are integers from 1, background is 0.")
        if (values != np.floor(values)).any():
            raise InputError(
                f"The {side} holds fractional values; ids are integers. Interpolate label maps by nearest neighbor."
            )
    if values.size and values.min() < 0:
        raise InputError(f"The {side} holds negative ids (lowest {values.min():g}); use 0 for background, ids from 1.")
    # As a Python number, which compares the same way for every dtype.
    highest = values.max().item() if values.size else 0
    if highest >= FIRST_TOO_LARGE_ID:
        raise InputError(f"The {side} holds the id {highest:.0f}; renumber its instances from 1.")
    return values.astype(np.int64)
