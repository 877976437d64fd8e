"""The documents name commands, files, modules and headings that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
PATH = re.compile(r"\b(?:benchmarks|demo|docs|nnunetv2_conflunet|tests)/[\w/]*\w(?:\.\w+)?")
DOTTED = re.compile(r"\bnnunetv2_conflunet(?:\.\w+)+")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def anchors(document):
    """The anchors that GitHub and MkDocs give to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@each_document
def test_links_lead_to_files_and_headings(document):
    for target, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@each_document
def test_lines_have_at_most_120_characters(document):
    assert [line for line in document.read_text(encoding="utf-8").splitlines() if len(line) > 120] == []


@each_document
def test_files_that_are_named_exist(document):
    for path in PATH.findall(document.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@each_document
def test_modules_and_functions_that_are_named_exist(document):
    for name in DOTTED.findall(document.read_text(encoding="utf-8")):
        place = ROOT
        parts = name.split(".")
        while parts and (place / parts[0]).is_dir():
            place /= parts.pop(0)
        module = place / "__init__.py"
        if parts and (place / f"{parts[0]}.py").exists():
            module = place / f"{parts.pop(0)}.py"
        assert module.exists(), name
        assert all(re.search(rf"\b{part}\b", module.read_text(encoding="utf-8")) for part in parts), name


@each_document
def test_imports_in_examples_exist(document):
    imports = r"from (nnunetv2_conflunet[\w.]*) import (\([^)]*\)|[^\n]+)"
    for module, names in re.findall(imports, document.read_text(encoding="utf-8")):
        place = ROOT.joinpath(*module.split("."))
        source = (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", re.sub(r"#[^\n]*", "", names)):
            assert re.search(rf"\b{name}\b", source), f"{module}.{name}"


def test_every_command_has_a_section():
    commands = re.findall(r"^(nnUNetv2_conflunet_\w+) =", (ROOT / "pyproject.toml").read_text(), flags=re.M)
    headings = re.findall(r"^## `(\w+)`$", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), flags=re.M)
    assert commands
    assert sorted(headings) == sorted(commands)
