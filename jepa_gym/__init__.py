"""jepa-gym: the latent space of a JEPA world model as a Gymnasium environment.

Importing this package registers the environments and nothing more; torch, robosuite and MuJoCo
are loaded by what needs them.

Shapes in all documentation: B batch, T time, N tokens of a frame, D latent width, A action,
H horizon, S samples, Y rows and X columns of a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from jepa_gym.world_model import WorldModel

__all__ = ["WorldModel", "__version__"]
__version__ = "0.1.0"

register(
    id="JEPALatent-v0",
    entry_point="jepa_gym.latent.env:JEPALatentEnv",
    vector_entry_point="jepa_gym.latent.vector_env:JEPALatentVectorEnv",
    max_episode_steps=10,
)
for _id, _module, _class, _horizon in (
    ("FrankaReach-v0", "reach", "FrankaReachEnv", 10),
    ("FrankaGrasp-v0", "grasp", "FrankaGraspEnv", 12),
    ("FrankaReachWithObject-v0", "reach_with_object", "FrankaReachWithObjectEnv", 10),
    ("FrankaPickPlace-v0", "pick_place", "FrankaPickPlaceEnv", 18),
):
    register(
        id=_id,
        entry_point=f"jepa_gym.envs.tasks.{_module}:{_class}",
        vector_entry_point=f"jepa_gym.envs.vector:{_id}",
        max_episode_steps=_horizon,
    )


def __getattr__(name: str) -> Any:
    if name == "WorldModel":
        from jepa_gym.world_model import WorldModel

        return WorldModel
    raise AttributeError(f"module 'jepa_gym' has no attribute {name!r}")
