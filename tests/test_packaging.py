"""The top-level folders install as `jepa_gym.<room>`: editable, by wheel and in a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
ROOMS = ("agents", "envs", "training", "benchmarks")
PACKAGE_FOLDERS = ("jepa_gym", *ROOMS)
_ANYWHERE = shutil.ignore_patterns("*.egg-info", "__pycache__", ".*_cache")
_AT_THE_TOP = {".git", ".venv", "data", "runs", "results", "build", "dist"}


def not_source(folder: str, names: list[str]) -> set[str]:
    """Return what a copy of the repository leaves out."""
    top = _AT_THE_TOP if Path(folder) == REPOSITORY else set()
    return _ANYWHERE(folder, names) | top & set(names)


def run_python(code: str, cwd: Path | str, **environment: str) -> str:
    """Run `code` in a new interpreter and return its output; fail with its errors."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def source_files() -> set[str]:
    """Return every file of the packages by its installed path, such as jepa_gym/envs/scene.py."""
    files = set()
    for folder in PACKAGE_FOLDERS:
        prefix = "" if folder == "jepa_gym" else "jepa_gym/"
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files.add(prefix + path.relative_to(REPOSITORY).as_posix())
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel offline from a copy of the tree, so that no old build folder leaks in."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(REPOSITORY, folder / "source", symlinks=True, ignore=not_source)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source"))
    return next(folder.glob("*.whl"))


def pip(*arguments: str) -> None:
    """Run pip without the network."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def _installed() -> None:
    try:
        metadata.distribution("jepa-gym")
    except metadata.PackageNotFoundError:
        pytest.skip("jepa-gym is not installed here (make test installs it)")


def test_package_list_is_what_the_folders_hold() -> None:
    found = {
        Path(name).parent.as_posix().replace("/", ".")
        for name in source_files()
        if name.endswith("/__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


@pytest.mark.parametrize("room", ROOMS)
def test_symlink_points_to_the_room(room: str) -> None:
    assert os.readlink(REPOSITORY / "jepa_gym" / room) == f"../{room}"


@pytest.mark.parametrize("room", ROOMS)
def test_room_refuses_to_be_imported_from_the_top(room: str) -> None:
    code = f"try:\n  import {room}\nexcept ImportError as error:\n  print(error)"
    assert f"jepa_gym.{room}" in run_python(code, cwd=REPOSITORY)


def test_every_dependency_is_pinned_within_its_range() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert not [pin for pin in pins.items() if "+" in pin[1]], "a pin with a local build suffix"
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    for requirement in map(Requirement, chain(project["dependencies"], *extras)):
        if requirement.name != "jepa-gym":
            assert pins[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("cwd", [REPOSITORY, "/"], ids=["checkout", "elsewhere"])
def test_rooms_import_from_any_folder(cwd: Path | str) -> None:
    code = "import jepa_gym.{0} as room; print(room.__file__)"
    for room in ROOMS:
        found = Path(run_python(code.format(room), cwd=cwd)).resolve()
        assert found == REPOSITORY / room / "__init__.py"


@pytest.mark.usefixtures("_installed")
def test_pickle_of_a_room_loads_in_a_new_process(tmp_path: Path) -> None:
    path = str(tmp_path / "config.pickle")
    run_python(
        "import pickle; from jepa_gym.agents.planners.cem import CEMConfig\n"
        f"pickle.dump(CEMConfig(), open({path!r}, 'wb'))",
        cwd=REPOSITORY,
    )
    code = (
        f"import pickle; config = pickle.load(open({path!r}, 'rb'))\n"
        "from jepa_gym.agents.planners.cem import CEMConfig\n"
        "print(type(config) is CEMConfig and config == CEMConfig())"
    )
    assert run_python(code, cwd="/") == "True"


def test_wheel_holds_the_packages_and_their_data_only(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == source_files()


def test_installed_wheel_registers_and_makes_the_environments(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--target", str(tmp_path), str(wheel))
    code = """
import importlib, gymnasium, jepa_gym
for name in {packages!r}:
    assert importlib.import_module(name).__file__.startswith({site!r}), name
gymnasium.make("FrankaReach-v0", obs_mode="state").reset(seed=0)
gymnasium.make("JEPALatent-v0").reset(seed=0)
print(*(name for name in gymnasium.registry if name.startswith(("JEPA", "Franka"))))
"""
    code = code.format(packages=PROJECT["tool"]["setuptools"]["packages"], site=str(tmp_path))
    ids = run_python(code, cwd="/", PYTHONPATH=str(tmp_path)).split()
    tasks = ("Reach", "Grasp", "ReachWithObject", "PickPlace")
    assert set(ids) == {"JEPALatent-v0", *(f"Franka{task}-v0" for task in tasks)}
