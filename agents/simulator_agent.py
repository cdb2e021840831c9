"""Planning with the simulator as the model: what this search can reach with perfect dynamics."""

from __future__ import annotations

import gymnasium as gym

from jepa_gym.agents.base import InOneEnvironment
from jepa_gym.agents.dynamics import SimulatorModel
from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners.cem import CEMConfig

SEARCH = CEMConfig(samples=24, iterations=3, top_k=5)
"""Every candidate is carried out and undone, so there are fewer than with a learned model."""


class SimulatorAgent(InOneEnvironment, MPCAgent):
    """Plan by the cross-entropy method in the simulator itself (privileged, slow).

    The cost is the distance in metres between `achieved_goal` and `desired_goal` after one move.
    That is an upper bound where the distance falls with every move, as in reaching, with or
    without an object; before an object is grasped the distance is flat and this search finds
    nothing.

    Args:
        env: The environment that is being acted in; see `SimulatorModel`.
        seed: Seed of the search.

    Raises:
        TypeError: If the environment cannot be branched.
    """

    def __init__(self, env: gym.Env, seed: int = 0) -> None:
        super().__init__(SimulatorModel(env), config=SEARCH, min_improvement=0.0, seed=seed)
        self.env = env
