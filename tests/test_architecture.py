"""`docs/architecture.md` says what the code does: the rooms, their arrows, and both walks."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from functools import cache
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from jepa_gym import WorldModel
from jepa_gym.benchmarks import reach_grasp, runner
from jepa_gym.models.ac_predictor import ActionConditionedPredictor

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()
ROOMS = ("jepa_gym", "agents", "envs", "training", "benchmarks")
WALK_LIMIT = 10


def section(title: str) -> str:
    """Return the text of the page below a heading."""
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def first_paths(text: str) -> list[str]:
    """Return the first file that each numbered line names."""
    return re.findall(r"^\d+\. `([\w/.]+)`", text, flags=re.MULTILINE)


# ---- rooms and arrows


@cache
def parts() -> dict[str, str]:
    """Return file or folder -> its part of a room, from the table of the page."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("Rooms"), flags=re.MULTILINE)
    return {path: name for name, cell in rows for path in re.findall(r"`([\w/.]+)`", cell)}


def part_of(file: str) -> str:
    """Return the part that a file belongs to: the longest path in the table has it."""
    owners = [path for path in parts() if file == path or file.startswith(f"{path.rstrip('/')}/")]
    assert owners, f"{file} stands in no row of the table"
    return parts()[max(owners, key=len)]


def source_files() -> list[str]:
    """Return the modules of all rooms; links are not followed."""
    paths = (path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
    return sorted(path.relative_to(REPOSITORY).as_posix() for path in paths)


def file_of(name: str) -> str:
    """Return the file of a module, or of the module that a name is taken from."""
    parts = name.split(".")[1:]
    prefix = [] if parts and parts[0] in ROOMS else ["jepa_gym"]
    for count in range(len(parts), -1, -1):
        stem = "/".join([*prefix, *parts[:count]])
        for file in (f"{stem}.py", f"{stem}/__init__.py"):
            if (REPOSITORY / file).is_file():
                return file
    raise AssertionError(name)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the package that a module imports when it runs, also inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef) and node.name == "__getattr__":
            continue  # `jepa_gym.WorldModel`: the package's face hands a name on
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("jepa_gym"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jepa_gym"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from imported(node)


@cache
def arrows() -> set[tuple[str, str]]:
    """Return who imports whom: rooms, and the parts of one room."""
    found = set()
    for file in source_files():
        for name in imported(ast.parse((REPOSITORY / file).read_text())):
            target = file_of(name)
            rooms = file.split("/")[0], target.split("/")[0]
            found.add(rooms if rooms[0] != rooms[1] else (part_of(file), part_of(target)))
    return {(start, end) for start, end in found if start != end}


def test_picture_shows_every_import_and_no_other() -> None:
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)$", section("Rooms"), flags=re.MULTILINE))
    assert drawn - arrows() == set(), "drawn, but not in the code"
    assert arrows() - drawn == set(), "in the code, but not drawn"


def test_no_two_rooms_or_parts_import_each_other() -> None:
    ends = {start: {end for begin, end in arrows() if begin == start} for start, _ in arrows()}
    reached = {start: set(direct) for start, direct in ends.items()}
    for _ in ends:
        for start in reached:
            reached[start] |= set().union(*(ends.get(end, set()) for end in reached[start]))
    assert not [start for start in reached if start in reached[start]]


# ---- walks


def file_in_repository(frame: FrameType) -> str | None:
    """Return the source file of a frame, or None if it is no module of the project."""
    path = Path(frame.f_code.co_filename).resolve()
    if path.is_relative_to(REPOSITORY):
        file = path.relative_to(REPOSITORY).as_posix()
        return file if file.split("/")[0] in ROOMS else None
    return None


def files_on_the_stack() -> list[str]:
    """Return the project's files that the running call came through, the outermost first."""
    frame: FrameType | None = sys._getframe(1)
    files: list[str] = []
    while frame is not None:
        file = file_in_repository(frame)
        if file is not None and files[-1:] != [file]:
            files.append(file)
        frame = frame.f_back
    return files[::-1]


class Here(Executor):
    """Run in the calling process what would run in workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_walk_of_an_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    decode = ActionConditionedPredictor.decode

    def watched(self: ActionConditionedPredictor, *args: Any, **kwargs: Any) -> Any:
        walks.append([*files_on_the_stack(), "jepa_gym/models/ac_predictor.py"])
        return decode(self, *args, **kwargs)

    monkeypatch.setattr(ActionConditionedPredictor, "decode", watched)
    monkeypatch.setattr(runner, "ProcessPoolExecutor", Here)
    job = {"agents": ("mpc-cem",), "tasks": ("reach",), "episodes": 1, "videos": False}
    reach_grasp.run(reach_grasp.Arguments(output=tmp_path, **job))
    walk = max(walks, key=len)  # a candidate of the search; that of holding still is shorter
    walk = walk[walk.index("benchmarks/reach_grasp.py") :]
    files = list(dict.fromkeys(walk))
    assert files == first_paths(section("The walk of an action"))
    assert len(files) <= WALK_LIMIT
    rooms = [room for room, _ in groupby(file.split("/")[0] for file in walk)]
    assert rooms == ["benchmarks", "agents", "jepa_gym"], "it returns to a room that it has left"


def test_walk_of_a_checkpoint() -> None:
    visited: dict[str, None] = {}
    known: dict[Any, str | None] = {}

    def watch(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            code = frame.f_code
            if code not in known:
                known[code] = None if code.co_name == "<module>" else file_in_repository(frame)
            if known[code] is not None:
                visited.setdefault(known[code])

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        WorldModel.from_pretrained("default")
    finally:
        sys.setprofile(before)
    assert list(visited) == first_paths(section("The walk of a checkpoint"))


def test_places_of_changes_exist() -> None:
    rows = re.findall(r"^\| [^|]+ \| (.+) \|$", section("Where do I change ..."), re.MULTILINE)
    assert len(rows) > 10
    for row in rows[1:]:
        assert row.startswith("---") or re.search(r"`[\w/.]+`", row), row
