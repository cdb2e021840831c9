"""Uniform random moves: the floor of every table."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from jepa_gym.agents.base import ACTION_DIM, Agent, spawned_generator


class RandomAgent(Agent):
    """Draw every action uniformly from a bounded action space.

    The draws come from the agent's own generator, so that `deterministic` changes nothing here:
    the same seed and the same sequence of calls give the same actions.

    Args:
        action_space: Bounded box (7,) of one environment, physical units.
        seed: Seed of the draws.

    Raises:
        ValueError: If the space is not a bounded box (7,).
    """

    def __init__(self, action_space: spaces.Box, seed: int = 0) -> None:
        check_bounded(action_space)
        self.action_space = action_space
        self._generator = spawned_generator(seed)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Draw actions (B, 7); see `Agent.act`."""
        low, high = self.action_space.low, self.action_space.high
        size = (len(observation["observation"]), ACTION_DIM)
        return self._generator.uniform(low, high, size).astype(np.float32), state


def check_bounded(action_space: spaces.Space) -> None:
    """Raise ValueError unless a space is a bounded box (7,)."""
    if not isinstance(action_space, spaces.Box) or action_space.shape != (ACTION_DIM,):
        raise ValueError(f"`action_space` must be a Box of shape (7,), got {action_space}.")
    if not action_space.is_bounded():
        raise ValueError(f"`action_space` must be bounded, got {action_space}.")
