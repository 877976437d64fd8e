"""The package as it is installed and imported."""

import ast
import re
import subprocess
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
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            found |= {name.partition(".")[0]: file for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, PACKAGE.name}}


@pytest.mark.parametrize("module", sorted(imported()))
def test_what_is_imported_is_declared(module):
    declared = {re.split(r"[^\w.-]", name, maxsplit=1)[0].lower() for name in requires("nnunetv2_conflunet")}
    distributions = {name.lower() for name in packages_distributions()[module]}
    assert distributions & declared, f"{imported()[module]} imports {module}"


def modules_after(code):
    """The top-level modules that a new process has imported after running `code`, and what it printed."""
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *lines, modules = printed.splitlines()
    return set(modules.split()), lines


@pytest.mark.parametrize(
    "code", ["import nnunetv2_conflunet as package; dir(package)", "from nnunetv2_conflunet.commands.path import main"]
)
def test_the_package_and_the_path_import_nothing_large(code):
    modules, _ = modules_after(code)
    assert not modules & {"torch", "numpy", "scipy", "pandas", "nnunetv2"}


def test_the_path_that_is_printed_holds_the_trainers():
    modules, (path,) = modules_after("from nnunetv2_conflunet.commands.path import main; main()")
    assert [file.name for file in Path(path).glob("*.py")] == ["nnunetv2_conflunet_trainers.py"]
    assert "torch" not in modules


@pytest.mark.parametrize("name", ["instantiate_cc", "InstantiationSettings", "remove_small_instances", "evaluate_case"])
def test_functions_on_arrays_import_no_torch(name):
    modules, _ = modules_after(f"from nnunetv2_conflunet import {name}")
    assert "numpy" in modules and not modules & {"torch", "nnunetv2"}


@pytest.mark.parametrize("name", nnunetv2_conflunet.__all__)
def test_the_package_offers_what_its_rooms_define(name):
    found = getattr(nnunetv2_conflunet, name)
    assert found is getattr(sys.modules[found.__module__], name)
    assert name in dir(nnunetv2_conflunet)


def test_type_checkers_see_the_same_names():
    """Those that are imported for type checkers are those that are loaded at their first use."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {alias.name: node.module for node in checked.body for alias in node.names}
    assert sorted(names) == sorted(nnunetv2_conflunet.__all__)
    for name, module in names.items():
        assert getattr(nnunetv2_conflunet, name) is getattr(sys.modules[module], name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'nnunetv2_conflunet' has no attribute 'instantiation'"):
        nnunetv2_conflunet.instantiation  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'instantiation'"):
        from nnunetv2_conflunet import instantiation  # noqa: F401


def test_the_version_can_be_read_without_importing_the_package():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (version,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__version__")
    assert ast.literal_eval(version) == nnunetv2_conflunet.__version__


def test_setuptools_reads_the_version():
    expand = pytest.importorskip("setuptools.config.expand")
    version = expand.read_attr("nnunetv2_conflunet.__version__", {"": str(PACKAGE.parent)}, PACKAGE.parent)
    assert version == nnunetv2_conflunet.__version__


def test_annotations_are_offered_to_type_checkers():
    assert (PACKAGE / "py.typed").is_file()
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["nnunetv2_conflunet"]
