"""jepa-gym: the latent space of a JEPA world model as a Gymnasium environment.

Importing this package registers the environments and nothing more; torch, robosuite and MuJoCo
are loaded by what needs them.

Shapes in all documentation: B batch, T time, N tokens of a frame, D latent width, A action,
H horizon, S samples, Y rows and X columns of a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
from gymnasium.envs.registration import register

from jepa_gym.names import did_you_mean

if TYPE_CHECKING:
    from jepa_gym.world_model import WorldModel

__all__ = ["ROBOSUITE_TASKS", "TASKS", "WorldModel", "__version__", "make_env"]
__version__ = "0.1.0"

TASKS: dict[str, str] = {}
"""Short names of the tasks, as in tables and on command lines -> environment ids."""

register(
    id="JEPALatent-v0",
    entry_point="jepa_gym.latent.env:JEPALatentEnv",
    vector_entry_point="jepa_gym.latent.vector_env:JEPALatentVectorEnv",
    max_episode_steps=10,
    disable_env_checker=True,  # Gymnasium's breaks `step` after a first `reset` that raises
)
for _task, _name, _horizon in (
    ("reach", "FrankaReach", 10),
    ("grasp", "FrankaGrasp", 12),
    ("reach-with-object", "FrankaReachWithObject", 10),
    ("pick-place", "FrankaPickPlace", 18),
):
    TASKS[_task] = f"{_name}-v0"
    register(
        id=TASKS[_task],
        entry_point=f"jepa_gym.envs.tasks.{_task.replace('-', '_')}:{_name}Env",
        vector_entry_point=f"jepa_gym.envs.vector:{TASKS[_task]}",
        max_episode_steps=_horizon,
        disable_env_checker=True,
    )
ROBOSUITE_TASKS = (
    "Lift", "Stack", "NutAssembly", "NutAssemblySingle", "NutAssemblySquare", "NutAssemblyRound",
    "PickPlace", "PickPlaceSingle", "PickPlaceMilk", "PickPlaceBread", "PickPlaceCereal",
    "PickPlaceCan", "Door", "ToolHang",
)  # fmt: skip
"""robosuite's tasks for one arm with a gripper; `robosuite/Lift` is the first one's id."""
for _task in ROBOSUITE_TASKS:
    register(
        id=f"robosuite/{_task}",
        entry_point="jepa_gym.envs.tasks.robosuite_task:RobosuiteEnv",
        kwargs={"task": _task},
        max_episode_steps=100,
        disable_env_checker=True,
    )


def make_env(model: WorldModel, task: str, **kwargs: Any) -> gym.Env:
    """Make the real environment that a world model expects.

    It shows what the model was trained on: views, size of the picture, length of a step, bound of a
    move, and the convention of its states (`FrameSpec.env_kwargs`).

    Args:
        model: The world model that is to act or to watch.
        task: A short name of `TASKS`, such as `"reach"`, or the id of an environment.
        **kwargs: More arguments of `gym.make`, such as `obj="cup"`; they come before the model's.

    Raises:
        ValueError: There is no such task.
    """
    env_id = TASKS.get(task, task)
    if env_id not in gym.registry:
        known = (*TASKS, *TASKS.values())
        raise ValueError(
            f"`task` must be one of {known} or a registered id, got {task!r}."
            + did_you_mean(task, known)
        )
    return gym.make(env_id, **(model.config.frame.env_kwargs() | kwargs))


def __getattr__(name: str) -> Any:
    if name == "WorldModel":
        from jepa_gym.world_model import WorldModel

        return WorldModel
    raise AttributeError(f"module 'jepa_gym' has no attribute {name!r}")
