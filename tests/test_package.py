"""The package as it is installed."""

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import nnunetv2_conflunet

PACKAGE = Path(nnunetv2_conflunet.__file__).parent


def imported():
    """Module -> a file of the package that imports it, of what is neither Python's own nor the package's."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [i.name for i in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0]: file for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, PACKAGE.name}}


@pytest.mark.parametrize("module", sorted(imported()))
def test_what_is_imported_is_declared(module):
    declared = {re.split(r"[^\w.-]", i, maxsplit=1)[0].lower() for i in requires("nnunetv2_conflunet")}
    distributions = {i.lower() for i in packages_distributions()[module]}
    assert distributions & declared, f"{imported()[module]} imports {module}"
