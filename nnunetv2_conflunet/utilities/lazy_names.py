"""Names of a package that are loaded on first use (PEP 562), so that importing the package stays fast."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def load_on_first_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that offers names from its modules.

    Args:
        package: its full name, that is its ``__name__``.
        modules: the module below the package that defines each name.

    >>> load_on_first_use("nnunetv2_conflunet", {"InputError": "utilities.errors"})("InputError").__name__
    'InputError'
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
