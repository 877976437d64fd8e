"""Reading instance maps and labels through nnU-Net's readers."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import itk, nifti
from nnunetv2_conflunet.imageio.geometry import in_file_order
from nnunetv2_conflunet.imageio.stored import StoredVoxels, check_png
from nnunetv2_conflunet.utilities.errors import InputError, list_some

# nnU-Net's readers return float32, which holds every integer below this one.
FIRST_INEXACT = 2**24


class _Kind(NamedTuple):
    """Wording of the errors about one kind of map."""

    name: str
    values: str
    too_large: str


_INSTANCES = _Kind("an instance map", "0 for background and positive integer ids", "Renumber the instances from 1.")
_LABELS = _Kind("a label", "0 for background and the integers of dataset.json", "Use the labels of dataset.json.")


def read_instances(path: str | os.PathLike, reader: BaseReaderWriter) -> tuple[np.ndarray, dict]:
    """Read a map of instance ids.

    Args:
        path: the file.
        reader: an instance of the dataset's reader.

    Returns:
        The ids, (X, Y, Z) int32 in nnU-Net's axis order, 0 is background; and the reader's properties.

    Raises:
        InputError: the file is missing, damaged or unreadable, has several channels or time points, complex, RGB or
            vector voxels, or holds NaN, infinite, negative, fractional values or ids of 2**24 and more.

    >>> import nibabel
    >>> from tempfile import TemporaryDirectory
    >>> from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    >>> with TemporaryDirectory() as folder:
    ...     nibabel.save(nibabel.Nifti1Image(np.uint8([[[0, 1, 2]]]), np.diag([1, 1, 3, 1])), f"{folder}/a.nii.gz")
    ...     instances, properties = read_instances(f"{folder}/a.nii.gz", SimpleITKIO())
    >>> instances.tolist()
    [[[0]], [[1]], [[2]]]
    """
    return _read(Path(path), reader, _INSTANCES)


def read_labels(
    path: str | os.PathLike, reader: BaseReaderWriter, declared: Collection[int]
) -> tuple[np.ndarray, dict]:
    """Read a label or a segmentation.

    Args:
        path: the file.
        reader: an instance of the dataset's reader.
        declared: the allowed values (see :func:`declared_labels`); empty without a dataset.json.

    Returns:
        The labels, (X, Y, Z) int32 in nnU-Net's axis order; and the reader's properties.

    Raises:
        InputError: as for :func:`read_instances`, or a value that is not declared.

    >>> import nibabel
    >>> from tempfile import TemporaryDirectory
    >>> from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    >>> with TemporaryDirectory() as folder:
    ...     nibabel.save(nibabel.Nifti1Image(np.uint8([[[0, 1, 1]]]), np.eye(4)), f"{folder}/a.nii.gz")
    ...     labels, properties = read_labels(f"{folder}/a.nii.gz", SimpleITKIO(), declared=(0, 1))
    >>> labels.ravel().tolist()
    [0, 1, 1]
    """
    labels, properties = _read(Path(path), reader, _LABELS)
    if declared and not _all_declared(labels, declared):
        _refuse_undeclared(Path(path), labels, declared)
    return labels, properties


def declared_labels(labels: dict) -> tuple[int, ...]:
    """Every value in `labels` of dataset.json, including the ignore label and those of regions, ascending.

    Raises:
        InputError: a value is not an integer.

    >>> declared_labels({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3})
    (0, 1, 2, 3)
    """
    regions = [value if isinstance(value, (list, tuple)) else [value] for value in labels.values()]
    try:
        return tuple(sorted({int(value) for region in regions for value in region}))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"dataset.json has the labels {labels}; each must be an integer after its name, as in "
            '{"background": 0, "lesion": 1}.'
        ) from error


def _read(path: Path, reader: BaseReaderWriter, kind: _Kind) -> tuple[np.ndarray, dict]:
    _require_content(path)
    stored = None
    try:
        stored = _stored(path)
        values, properties = reader.read_seg(str(path))
    except InputError:
        raise
    except Exception as error:
        if stored is not None:
            stored.check_whole(None)
        raise InputError(
            f"{path} cannot be read by {type(reader).__name__} ({type(error).__name__}: {error}). It must be a "
            f"complete image file with one channel of {kind.values}, in the dataset's format."
        ) from error
    _require_one_value_a_voxel(path, values, properties, kind)
    # Values that do not fit into int32 are found below.
    with np.errstate(invalid="ignore"):
        numbers = values[0].astype(np.int32)
    is_stored = stored is not None and stored.has_sum_of(in_file_order(numbers, properties))
    if stored is None or not is_stored or stored.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        # For these types every value is valid.
        _require_values_in_range(path, values[0], kind)
    if not is_stored:
        _require_whole_numbers(path, values[0], numbers, kind)
        if stored is not None:
            stored.check_whole(in_file_order(numbers, properties))
    return numbers, _of_one_volume(properties)


def _require_content(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    if path.name.startswith("._"):
        raise InputError(f"{path} is not an image but a metadata file of macOS. Delete the files that begin with '._'.")
    if not path.stat().st_size:
        raise InputError(f"{path} cannot be read: it is empty (0 bytes). Copy or export it again.")


def _stored(path: Path) -> StoredVoxels | None:
    """How the file stores its voxels; None for a format whose content need not be compared after reading."""
    name = path.name.lower()
    if name.endswith(nifti.ENDINGS):
        return nifti.stored_nifti(path)
    if name.endswith(itk.ENDINGS):
        return itk.stored_itk(path)
    if name.endswith(".png"):
        check_png(path)
    return None


def _require_one_value_a_voxel(path: Path, values: np.ndarray, properties: dict, kind: _Kind) -> None:
    # SimpleITK puts the values of a voxel last, and nnU-Net's spacing then has fewer entries than the array has axes.
    n_values = values.shape[0] if len(properties["spacing"]) == values.ndim - 1 else values.shape[-1]
    if values.ndim != 4 or n_values != 1:
        raise InputError(
            f"{path} has {n_values} channels or time points (array {values.shape}); {kind.name} has one value "
            "per voxel. Save one number per voxel and one image per case."
        )


def _require_values_in_range(path: Path, values: np.ndarray, kind: _Kind) -> None:
    # NaN propagates to both, so they show whether all values are finite.
    lowest, highest = values.min(initial=0), values.max(initial=0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(f"{path} holds NaN or infinite values; {kind.name} holds {kind.values}.")
    if lowest < 0:
        raise InputError(f"{path} holds negative values (lowest {lowest:g}); {kind.name} holds {kind.values}.")
    if highest >= FIRST_INEXACT:
        raise InputError(
            f"{path} holds the value {highest:.0f}; nnU-Net's readers represent integers exactly only "
            f"below {FIRST_INEXACT}. {kind.too_large}"
        )


def _require_whole_numbers(path: Path, values: np.ndarray, numbers: np.ndarray, kind: _Kind) -> None:
    # Slice by slice, so that each stays in the processor's cache from the cast to the comparison.
    slices = zip(numbers, values, strict=True)
    fractional = sum(np.count_nonzero(whole.astype(read.dtype) != read) for whole, read in slices)
    if fractional:
        raise InputError(
            f"{path} holds fractional values in {fractional} voxels; {kind.name} holds integers. Interpolate label "
            "maps by nearest neighbor."
        )


def _of_one_volume(properties: dict) -> dict:
    """The properties without the time axis that SimpleITK adds to a file with one frame."""
    stuff = properties.get("sitk_stuff", {})
    if len(stuff.get("spacing", ())) != 4:
        return properties
    direction = np.reshape(stuff["direction"], (4, 4))[:3, :3]
    volume = {"spacing": stuff["spacing"][:3], "origin": stuff["origin"][:3], "direction": tuple(direction.ravel())}
    return properties | {"sitk_stuff": stuff | volume}


def _all_declared(labels: np.ndarray, declared: Collection[int]) -> bool:
    highest = labels.max(initial=0)
    if highest > max(declared):
        return False
    # Consecutive labels, as nnU-Net requires, need no check of every voxel.
    return set(range(highest + 1)) <= set(declared) or bool(np.isin(labels, list(declared)).all())


def _refuse_undeclared(path: Path, labels: np.ndarray, declared: Collection[int]) -> None:
    found = np.unique(labels).tolist()
    strange = [value for value in found if value not in declared]
    n_voxels = np.count_nonzero(np.isin(labels, strange))
    unused = [value for value in declared if value not in found and value != 0]
    remedy = "Replace them with the labels they mean, or declare them in dataset.json (0, 1, 2, ... without gaps)."
    if len(strange) == len(unused) == 1:
        remedy = f"If it means the label {unused[0]}, replace {strange[0]} with {unused[0]} in every label."
    raise InputError(
        f"{path} holds {list_some(strange)} in {n_voxels} voxels; dataset.json declares "
        f"{list_some(tuple(declared))} only. {remedy}"
    )
