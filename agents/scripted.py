"""The scripted expert: what a task allows with full knowledge of the simulator."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.agents.base import Agent


class ScriptedAgent(Agent):
    """Ask one real environment for its expert's action (privileged simulator information).

    Args:
        env: The environment that is being acted in, wrapped or not; its core has `expert_action()`.

    Raises:
        TypeError: If the environment has no expert.
    """

    def __init__(self, env: gym.Env) -> None:
        if not callable(getattr(env.unwrapped, "expert_action", None)):
            raise TypeError(
                f"{type(env.unwrapped).__name__} has no `expert_action()`; the scripted agent "
                "works in the Franka environments only."
            )
        self.env = env

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Return the expert's action (1, 7); see `Agent.act`.

        Raises:
            ValueError: If the batch holds more than the one environment.
        """
        if len(observation["observation"]) != 1:
            raise ValueError(
                "The scripted agent acts in the one environment it was made with, "
                f"got a batch of {len(observation['observation'])}."
            )
        action = np.asarray(self.env.unwrapped.expert_action(), dtype=np.float32)
        return action[None], state
