"""The Franka suite: robosuite's Panda in MuJoCo, seen by DROID-style cameras.

This room knows nothing of learning: it imports neither torch nor any other room.
"""

import ctypes.util
import os
import sys

if __name__ == "envs":
    raise ImportError(
        "This folder is the package `jepa_gym.envs`: write `import jepa_gym.envs` "
        "(importing it as `envs` would load a second copy of every class)."
    )

if sys.platform == "linux" and "MUJOCO_GL" not in os.environ:
    # MuJoCo reads the variable when it is imported, and its own default needs a desktop.
    _osmesa_only = ctypes.util.find_library("EGL") is None and ctypes.util.find_library("OSMesa")
    os.environ["MUJOCO_GL"] = "osmesa" if _osmesa_only else "egl"
