"""The Franka suite: robosuite's Panda in MuJoCo, seen by DROID-style cameras.

This room knows nothing of learning: it imports neither torch nor any other room.
"""

if __name__ == "envs":
    raise ImportError(
        "This folder is the package `jepa_gym.envs`: write `import jepa_gym.envs` "
        "(importing it as `envs` would load a second copy of every class)."
    )
