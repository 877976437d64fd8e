"""The id of lesion voxels for which it is not known which lesion they belong to."""

from typing import TypeVar

import numpy as np
import pandas as pd

from nnunetv2_conflunet.imageio.instance_maps import LARGEST_ID
from nnunetv2_conflunet.imageio.reading import FIRST_INEXACT
from nnunetv2_conflunet.utilities.array_checks import is_number
from nnunetv2_conflunet.utilities.errors import InputError

KEY = "instances"
# Keys that begin like this are the declaration or misspell it; if it went unseen, all unknown lesions would become one.
SIMILAR = "unk"
Ids = TypeVar("Ids", np.ndarray, pd.Series)


def unknown_id(dataset_json: dict) -> int | None:
    """The id of unknown instances that a dataset.json declares as ``"instances": {"unknown": 65535}``.

    Voxels with this id are lesion in the mask, but neither a lesion of their own nor part of a known one. An entry
    ``"instances"`` that does not speak of unknown ones belongs to someone else and declares nothing.

    Args:
        dataset_json: the content of the file.

    Returns:
        The id, or None if the dataset declares none.

    Raises:
        InputError: the entry is a number or has a similar key, which looks like a slip; the declared id is not a
            positive integer, or no file of the dataset's format can hold it.

    >>> unknown_id({"labels": {"background": 0, "lesion": 1}, "instances": {"unknown": 65535}})
    65535
    """
    entry = dataset_json.get(KEY)
    if not is_number(entry) and not (isinstance(entry, dict) and any(key.lower().startswith(SIMILAR) for key in entry)):
        return None
    value = entry.get("unknown") if isinstance(entry, dict) else None
    if type(value) is not int or value < 1:
        raise InputError(
            f'dataset.json declares "{KEY}": {entry!r}; the id of unknown instances is a positive integer, as in '
            f'"{KEY}": {{"unknown": 65535}}.'
        )
    ending = str(dataset_json.get("file_ending", ""))
    largest = LARGEST_ID.get(ending.lower(), FIRST_INEXACT - 1)
    if value > largest:
        raise InputError(
            f"dataset.json declares {value} as the id of unknown instances, but {ending or 'its'} files can hold ids "
            f"up to {largest} only. Declare a smaller id that no lesion has, and use it in the instance maps."
        )
    return value


def declaring(dataset_json: dict, unknown: int | None) -> dict:
    """A dataset.json with this id of unknown instances, or without one; whatever else it holds stays.

    Raises:
        InputError: the entry ``"instances"`` belongs to someone else and has no place for it.

    >>> declaring({"file_ending": ".tif"}, 65535)
    {'file_ending': '.tif', 'instances': {'unknown': 65535}}
    """
    entry = dataset_json.get(KEY) or {}
    if not isinstance(entry, dict):
        if unknown is None:
            return dataset_json
        raise InputError(
            f'dataset.json has "{KEY}": {entry!r}, where the id of unknown instances is declared, as in '
            f'"{KEY}": {{"unknown": {unknown}}}. Give that entry another name.'
        )
    others = {key: value for key, value in entry.items() if key != "unknown"}
    entry = others if unknown is None else others | {"unknown": unknown}
    rest = {key: value for key, value in dataset_json.items() if key != KEY}
    return rest | {KEY: entry} if entry else rest


def without_unknown(instances: np.ndarray, unknown: int | None) -> np.ndarray:
    """A map of the known instances only: background where the id is `unknown`; the same map if that is None.

    >>> without_unknown(np.array([[0, 7, 9]]), unknown=9).tolist()
    [[0, 7, 0]]
    """
    return instances if unknown is None else np.where(instances == unknown, 0, instances)


def numbered_around(ids: Ids, unknown: int | None) -> Ids:
    """Ids 1..N of lesions with the id of unknown instances left out, in an array or a column.

    >>> numbered_around(np.array([0, 1, 2, 3]), unknown=2).tolist()
    [0, 1, 3, 4]
    """
    return ids if unknown is None else ids + (ids >= unknown)
