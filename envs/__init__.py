"""The Franka suite: robosuite's Panda in MuJoCo, seen by DROID-style cameras.

This room knows nothing of learning: it imports neither torch nor any other room.
"""

import importlib

if __name__ == "envs":
    raise ImportError(
        "This folder is the package `jepa_gym.envs`: write `import jepa_gym.envs` "
        "(importing it as `envs` would load a second copy of every class)."
    )

from jepa_gym.envs.pictures.gl_help import gl_error

try:
    importlib.import_module("mujoco")  # loads the library that MUJOCO_GL names
except (AttributeError, OSError) as error:  # PyOpenGL's, where there is no such library
    raise gl_error(error) from error
