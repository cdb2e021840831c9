"""What the pages name exists, and what is written in the repository is written for strangers."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

from jepa_gym.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("jepa_gym", "agents", "envs", "training", "benchmarks", "tests", "tools", "docs")
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
PAGE_NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
WRITTEN_AT_RUN_TIME = {"results", "runs", "data"}
PRIVATE = re.compile(
    r"\bfacts?\s+\d|\b(?:ecosystem|feasibility|anchors|peers|vjepa2|style|design|brief)\.md\b|/work/",
    re.IGNORECASE,
)
"""Notes and places that only the developers have; a source is a paper or a public file."""


@pytest.fixture(params=PAGES, ids=PAGE_NAMES)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def modules(*folders: str) -> list[Path]:
    """Return the Python files of the folders; links are not followed."""
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", text)
    named += re.findall(r"\bpython ([\w/]+\.py)\b", text)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        try:
            reduce(getattr, parts[count:], found)
        except AttributeError:
            return False
        return True
    return False


def test_names_of_the_package_on_a_page_exist(page: Path) -> None:
    text = page.read_text()
    names = set(re.findall(r"\bjepa_gym(?:\.\w+)+", text))
    imports = re.findall(r"from (jepa_gym[\w.]*) import ([\w, ]+)", text)
    names |= {f"{module}.{name}" for module, several in imports for name in several.split(", ")}
    assert not [name for name in sorted(names) if not resolves(name)]


def test_commands_on_a_page_exist(page: Path) -> None:
    lists = re.findall(r"jepa-gym ([a-z-]+(?:[\s|]+[a-z-]+)*)`", page.read_text())
    named = {word for line in lists if "|" in line for word in re.split(r"[\s|]+", line)}
    named |= set(re.findall(r"^jepa-gym ([a-z][a-z-]*)", page.read_text(), flags=re.MULTILINE))
    named |= set(re.findall(r"`jepa-gym ([a-z][a-z-]*)", page.read_text()))
    assert not named - set(COMMANDS)


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and texts of the comments and docstrings of a module."""
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        # also the strings below fields and constants
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.lineno, str(node.value.value)


def test_private_notes_are_no_source() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {text.strip()[:80]}"
        for path in modules(*FOLDERS)
        for line, text in prose(path)
        if PRIVATE.search(text)
    ]
    pages = [*PAGES, REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "jepa_gym").rglob("*.md")]
    found += [str(page) for page in pages if PRIVATE.search(page.read_text())]
    assert not found


def lower_case_entries(docstring: str) -> Iterator[str]:
    """Yield the entries of a Google-style docstring that begin with a small letter."""
    described = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            described = line in ("Args:", "Attributes:", "Raises:")
        elif described and re.match(r"    \S", line):
            entry = line.partition(": ")[2]
            if re.match(r"[a-z]+\b(?![_(.=\d])", entry) and not entry.startswith("xyz"):
                yield line.strip()


@pytest.mark.parametrize("folder", ["jepa_gym", "agents", "envs", "training", "benchmarks"])
def test_entries_of_docstrings_begin_with_a_capital_letter(folder: str) -> None:
    documented = (ast.FunctionDef, ast.ClassDef, ast.Module)
    found = [
        f"{path.relative_to(REPOSITORY)}: {entry}"
        for path in modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, documented)
        for entry in lower_case_entries(ast.get_docstring(node) or "")
    ]
    assert not found
