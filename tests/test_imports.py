"""Who may import whom, what `import jepa_gym` costs, and that no module hides one of Python's."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("agents", "envs", "training", "benchmarks")
FORBIDDEN = {
    "jepa_gym": {f"jepa_gym.{room}" for room in ROOMS} | {"robosuite", "mujoco"},
    "envs": {"torch", "stable_baselines3", "jepa_gym.agents", "jepa_gym.training"}
    | {"jepa_gym.benchmarks", "jepa_gym.models", "jepa_gym.world_model"},
    "agents": {"jepa_gym.envs", "jepa_gym.training", "jepa_gym.benchmarks"},
    "training": {"jepa_gym.benchmarks"},
    "benchmarks": set(),
}
HEAVY = ("torch", "robosuite", "mujoco", "stable_baselines3", "scipy", "h5py", "matplotlib")
HEAVY += ("cv2", "imageio", "tyro", "numba", "transformers", "huggingface_hub")
IMPORT_LIMIT_S = 0.5


def imported_names(path: Path) -> set[str]:
    """Return every module, and every name taken from one, that the file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def modules(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))  # does not follow the symlinks


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_point_one_way(folder: str) -> None:
    refused = FORBIDDEN[folder] | set(ROOMS)
    for path in modules(folder):
        for name in imported_names(path):
            where = f"{path.relative_to(REPOSITORY)} imports {name}"
            assert not name.startswith("."), f"{where}: write the full name, jepa_gym...."
            guilty = [bad for bad in refused if name == bad or name.startswith(f"{bad}.")]
            assert not guilty, f"{where}: `{folder}` may not import {guilty[0]}"


@pytest.mark.parametrize("folder", ROOMS)
def test_no_module_hides_another(folder: str) -> None:
    """A file run by its path has its folder first on sys.path: `statistics.py` would win there."""
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    taken |= {"datasets", "utils", "models"} - set(FORBIDDEN)
    clashes = [
        path for path in modules(folder) if path.parent.name == folder and path.stem in taken
    ]
    assert not clashes


def fastest_s(code: str) -> float:
    """Return the CPU seconds that `code` takes in a new interpreter, the least of five tries.

    Not those of the clock: a busy machine must not fail the test.
    """
    timed = f"import time; start = time.process_time()\n{code}\nprint(time.process_time() - start)"
    command = [sys.executable, "-c", timed]
    return min(
        float(subprocess.check_output(command, cwd=REPOSITORY, text=True).split()[-1])
        for _ in range(5)
    )


def test_import_is_quick() -> None:
    assert fastest_s("import jepa_gym") < IMPORT_LIMIT_S


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, jepa_gym, jepa_gym.cli; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.check_output(command, cwd=REPOSITORY, text=True).split()
    assert not set(HEAVY) & set(loaded)


def test_help_is_quick() -> None:
    assert fastest_s("from jepa_gym.cli import main; main(['--help'])") < IMPORT_LIMIT_S
