"""nnU-Net's own postprocessing, as ``nnUNetv2_find_best_configuration`` stores it."""

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunetv2_conflunet.utilities.errors import InputError

# Functions of a segmentation, each with its keyword arguments.
Postprocessing = list[tuple[Callable, dict]]


class _StockUnpickler(pickle.Unpickler):
    """Reads nnU-Net's postprocessing and nothing else, since unpickling can execute arbitrary code."""

    def find_class(self, module: str, name: str) -> Callable:
        function = remove_all_but_largest_component_from_segmentation
        if (module, name) != (function.__module__, function.__name__):
            raise pickle.UnpicklingError(f"{module}.{name} is not nnU-Net's postprocessing")
        return function


def read_stock_postprocessing(path: Path) -> Postprocessing:
    """The functions in a ``postprocessing.pkl`` with their arguments.

    Raises:
        InputError: the file cannot be read, or holds anything but nnU-Net's own function and its arguments.
    """
    try:
        with path.open("rb") as file:
            functions, arguments = _StockUnpickler(file).load()
        for function, named in zip(functions, arguments, strict=True):
            inspect.signature(function).bind(None, **named)
        return list(zip(functions, arguments, strict=True))
    except Exception as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}); determine nnU-Net's postprocessing again."
        ) from error
