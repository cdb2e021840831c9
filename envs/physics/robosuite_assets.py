"""Where robosuite's Panda lives on disk, found without importing robosuite.

`import robosuite` takes seconds, compiles numba functions and pulls OpenCV; the suite needs its
model files only. Its camera observations are not used at all: robosuite 1.5.2 may hand out stale or
random frames after a garbage collection (its render context frees another context's framebuffer).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import mujoco

MUJOCO_BELOW = (3, 10)
"""Tested range of MuJoCo: robosuite 1.5.2 itself breaks from 3.10 on."""


def check_mujoco_version() -> None:
    """Raise ImportError if the installed MuJoCo is outside the tested range."""
    version = tuple(int(part) for part in mujoco.__version__.split(".")[:2])
    if version >= MUJOCO_BELOW:
        raise ImportError(
            f"jepa_gym.envs is tested with mujoco >=3.3,<3.10, found {mujoco.__version__}. "
            'Run: pip install "mujoco>=3.3,<3.10"'
        )


def asset(name: str) -> Path:
    """Return a file of robosuite's `models/assets`.

    Args:
        name: Its path in that folder.

    Raises:
        ImportError: If robosuite is not installed.
        FileNotFoundError: The installed robosuite has no such file.
    """
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('The Franka suite needs robosuite: pip install "robosuite>=1.5.2,<1.6"')
    path = Path(next(iter(spec.submodule_search_locations))) / "models" / "assets" / name
    if not path.is_file():
        raise FileNotFoundError(
            f"robosuite {robosuite_version()} has no {path}; reinstall it: "
            'pip install --force-reinstall "robosuite>=1.5.2,<1.6"'
        )
    return path


def robosuite_version() -> str:
    """Return the version of the installed robosuite."""
    return importlib.metadata.version("robosuite")
