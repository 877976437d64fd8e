"""The id of lesion voxels for which it is not known which lesion they belong to."""

from nnunetv2_conflunet.utilities.errors import InputError

KEY = "instances"


def unknown_id(dataset_json: dict) -> int | None:
    """The id of unknown instances that a dataset.json declares as ``"instances": {"unknown": 65535}``.

    Voxels with this id are lesion in the mask, but neither a lesion of their own nor part of a known one.

    Args:
        dataset_json: the content of the file.

    Returns:
        The id, or None if the dataset declares none.

    Raises:
        InputError: the declaration is not a positive integer.

    >>> unknown_id({"labels": {"background": 0, "lesion": 1}, "instances": {"unknown": 65535}})
    65535
    """
    declared = dataset_json.get(KEY)
    if declared is None:
        return None
    value = declared.get("unknown") if isinstance(declared, dict) and set(declared) == {"unknown"} else None
    if type(value) is not int or value < 1:
        raise InputError(
            f'dataset.json declares "{KEY}": {declared!r}; the id of unknown instances is a positive integer, as in '
            f'"{KEY}": {{"unknown": 65535}}.'
        )
    return value
