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
    entry_point="jepa_gym.latent_env:JEPALatentEnv",
    max_episode_steps=10,
)
register(
    id="FrankaReach-v0",
    entry_point="jepa_gym.envs.reach:FrankaReachEnv",
    max_episode_steps=10,
)
register(
    id="FrankaGrasp-v0",
    entry_point="jepa_gym.envs.grasp:FrankaGraspEnv",
    max_episode_steps=12,
)


def __getattr__(name: str) -> Any:
    if name == "WorldModel":
        from jepa_gym.world_model import WorldModel

        return WorldModel
    raise AttributeError(f"module 'jepa_gym' has no attribute {name!r}")
