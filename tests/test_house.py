"""The layout: rooms and modules of limited size, imports that run downwards, public names with examples."""

import ast
import doctest
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nnunetv2_conflunet

PACKAGE = Path(nnunetv2_conflunet.__file__).parent
MOST_LINES, MOST_MODULES = 250, 12
FILES = sorted(PACKAGE.rglob("*.py"))
# From the bottom to the top. A room imports from its own floor and from those below.
FLOORS = (
    {"utilities"},
    {"imageio", "networks"},
    {"pictures", "postprocessing", "preprocessing"},
    {"evaluation", "formats", "inference", "nnunet_plugin", "simulation"},
    {"trainers", "tuning"},
    {"commands", "nnunet_ext"},
)
# Likewise within the evaluation.
EVALUATION_FLOORS = ({"metrics"}, {"detection"}, {"cohort"}, {"report"})
# What rooms of pure functions on arrays may import besides Python's own modules and the package's.
PURE = {"numpy", "scipy", "cc3d", "skimage"}
PURE_ROOMS = {
    "postprocessing": PURE,
    "evaluation/metrics": {*PURE, "surface_distance"},
    "evaluation/detection": PURE,
}


def dotted(file: Path) -> str:
    """The name by which a file of the package is imported."""
    return ".".join([PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


MODULES = {dotted(file): file for file in FILES}


def imports_of(file: Path) -> set[str]:
    """Modules that a file imports, wherever in it, as they are named there, of the package down to its modules."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in names}
    return found


IMPORTS = {name: {found for found in imports_of(file) if found in MODULES} for name, file in MODULES.items()}


def floor_of(name: str, floors: tuple[set[str], ...], depth: int) -> int:
    (floor,) = (i for i, rooms in enumerate(floors) if name.split(".")[depth] in rooms)
    return floor


def upwards(floors: tuple[set[str], ...], within: str) -> list[str]:
    """Imports from a lower to a higher floor of a package."""
    depth = within.count(".") + 1
    inside = {name for name in MODULES if name.startswith(f"{within}.")}
    return [
        f"{name} imports {other}"
        for name in sorted(inside)
        for other in sorted(IMPORTS[name] & inside)
        if floor_of(name, floors, depth) < floor_of(other, floors, depth)
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_has_too_many_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("room", sorted({file.parent for file in FILES}), ids=lambda room: room.name)
def test_no_room_has_too_many_modules(room):
    assert len([file for file in room.glob("*.py") if file.name != "__init__.py"]) <= MOST_MODULES


def test_every_room_has_its_floor():
    assert {file.relative_to(PACKAGE).parts[0] for file in FILES} - {"__init__.py"} == set().union(*FLOORS)


def test_imports_run_downwards():
    assert upwards(FLOORS, PACKAGE.name) == []


def test_imports_run_downwards_within_the_evaluation():
    assert upwards(EVALUATION_FLOORS, f"{PACKAGE.name}.evaluation") == []


def test_no_modules_import_each_other():
    """Modules can be removed one after another, each when it imports none that is left; the root imports lazily."""
    left = {name: {*IMPORTS[name]} - {name, PACKAGE.name} for name in MODULES if name != PACKAGE.name}
    while done := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in done}
    assert not left


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_functions_on_arrays_import_nothing_else(room):
    allowed = {*sys.stdlib_module_names, PACKAGE.name, *PURE_ROOMS[room]}
    files = (PACKAGE / room).rglob("*.py")
    found = {name.partition(".")[0]: file.name for file in files for name in imports_of(file)}
    assert {module: file for module, file in found.items() if module not in allowed} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_star_imports(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not [alias for alias in ast.walk(tree) if isinstance(alias, ast.ImportFrom) and alias.names[0].name == "*"]


def public_names() -> list[tuple[str, str]]:
    """Room and name of everything in an ``__all__``; trainers are named on the command line and show nothing."""
    rooms = [name for name, file in MODULES.items() if file.name == "__init__.py"]
    lists = {room: getattr(import_module(room), "__all__", ()) for room in rooms}
    return [(room, name) for room in rooms for name in lists[room] if not name.startswith("nnUNetTrainer")]


@pytest.mark.parametrize("room, name", public_names())
def test_public_names_show_an_example(room, name):
    found = getattr(import_module(room), name)
    if not callable(found):
        return
    assert any(test.examples for test in doctest.DocTestFinder().find(found, name)), f"{room}.{name} has no example"
