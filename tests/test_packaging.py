"""The top-level folders install as `jepa_gym.<room>`: editable, by wheel and in a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jepa_gym import TASKS, __version__

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.11 has it from 3.11.4 on, and Debian 12 an earlier one."""
ROOMS = ("agents", "envs", "training", "benchmarks")
_ANYWHERE = shutil.ignore_patterns("*.egg-info", "__pycache__", ".*_cache")
_AT_THE_TOP = {".git", ".venv", "data", "runs", "results", "build", "dist"}


def not_source(folder: str, names: list[str]) -> set[str]:
    """Return what a copy of the repository leaves out."""
    top = _AT_THE_TOP if Path(folder) == REPOSITORY else set()
    return _ANYWHERE(folder, names) | top & set(names)


def run_python(code: str, cwd: Path | str, python: Path | str = sys.executable) -> str:
    """Run `code` in a new interpreter and return its output; fail with its errors."""
    result = subprocess.run([python, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def files_below(folder: str) -> set[str]:
    """Return every file below a folder of the repository, such as envs/vector.py."""
    return {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def source_files() -> set[str]:
    """Return every file of the packages by its installed path, such as jepa_gym/envs/vector.py."""
    rooms = {f"jepa_gym/{name}" for room in ROOMS for name in files_below(room)}
    return files_below("jepa_gym") | rooms


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files that a wheel installs, without those that describe it."""
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist() if ".dist-info/" not in name}


def pip(*arguments: str) -> None:
    """Run pip without the network."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the tree, so that no old build folder leaks into what is built."""
    folder = tmp_path_factory.mktemp("build") / "source"
    shutil.copytree(REPOSITORY, folder, symlinks=True, ignore=not_source)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Build the wheel offline."""
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(source.parent), str(source))
    return next(source.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    """Build the source distribution offline, as a build front end does, and unpack it."""
    code = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    archive = source.parent / run_python(code, cwd=source).splitlines()[-1]
    with tarfile.open(archive) as packed:
        packed.extractall(source.parent / "unpacked", **SAFELY)
    return source.parent / "unpacked" / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a virtual environment of its own and return that one's Python.

    What jepa-gym depends on is shared with the environment of the tests. The path file that makes
    an editable jepa-gym importable there does not count here, since Python reads such files in its
    own site-packages only.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    own = run_python("import sysconfig; print(sysconfig.get_path('purelib'))", "/", python)
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (Path(own) / "shared.pth").write_text("\n".join(shared))
    pip("install", "--target", own, str(wheel))
    return python


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


@pytest.mark.skipif((REPOSITORY / "PKG-INFO").exists(), reason="an sdist holds no links")
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
    assert set(contents(wheel)) == source_files()


def test_installed_wheel_registers_and_makes_the_environments(installed_python: Path) -> None:
    code = f"""
import importlib, gymnasium, jepa_gym
for name in {PROJECT["tool"]["setuptools"]["packages"]!r}:
    found = importlib.import_module(name).__file__
    assert found.startswith({str(installed_python.parents[1])!r}), found
gymnasium.make("FrankaReach-v0", obs_mode="state").reset(seed=0)
gymnasium.make("JEPALatent-v0").reset(seed=0)
print(*(name for name in gymnasium.registry if name.startswith(("JEPA", "Franka"))))
"""
    ids = run_python(code, "/", installed_python).split()
    assert set(ids) == {"JEPALatent-v0", *TASKS.values()}


@pytest.mark.parametrize("call", ["make({!r})", "make_vec({!r}, num_envs=2)"])
def test_the_id_with_the_name_of_the_package_needs_no_import(
    installed_python: Path, call: str
) -> None:
    """Gymnasium reads no entry points of plugins, so that a bare id needs `import jepa_gym`."""
    code = f"""
import gymnasium as gym
env = gym.{call.format("jepa_gym:JEPALatent-v0")}
observation, _ = env.reset(seed=0)
print(env.spec.id, observation["observation"].shape)
"""
    shape = "(2, 7)" if "vec" in call else "(7,)"
    assert run_python(code, "/", installed_python) == f"JEPALatent-v0 {shape}"


def test_sdist_holds_what_is_needed_to_build_and_test_it(sdist: Path) -> None:
    packed = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*")}
    folders = ("jepa_gym", *ROOMS, "tests", "docs", "tools", "notebooks", ".ci")
    wanted = set().union(*map(files_below, folders))
    wanted |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"}
    wanted |= {"Makefile", "pyproject.toml", "constraints.txt"}
    assert not wanted - packed


def test_wheel_of_the_sdist_is_that_of_the_checkout(sdist: Path, wheel: Path) -> None:
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(sdist.parent), str(sdist))
    (rebuilt,) = sdist.parent.glob("*.whl")
    assert contents(rebuilt) == contents(wheel)


def test_citation_and_package_say_the_same() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text()
    project = PROJECT["project"]
    same = {"title": project["name"], "license": project["license"], "version": __version__}
    for key, value in same.items():
        assert f"\n{key}: {value}\n" in citation, f"CITATION.cff has another {key}"
    assert f"- name: {project['authors'][0]['name']}\n" in citation
    assert project["description"] in " ".join(citation.split())
