"""Smooth random moves: noise with a memory, which goes further than independent draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from jepa_gym.agents.base import Agent, spawned_generator
from jepa_gym.agents.random_agent import check_bounded


class SmoothNoiseAgent(Agent):
    """Draw actions from a first-order autoregressive process within a bounded action space.

    Each number follows x(t+1) = memory * x(t) + sqrt(1 - memory^2) * noise, so that its spread does
    not depend on the memory. An episode starts with a fresh draw. Uniform moves stay near
    their start (the steps cancel); these wander through the workspace.

    Args:
        action_space: Bounded box (7,) of one environment, physical units.
        memory: Correlation of one action with the next, in [0, 1).
        spread: Standard deviation, as a share of half the space's width.
        seed: Seed of the draws.

    Raises:
        ValueError: If the space is not a bounded box (7,), or a number is out of its range.
    """

    def __init__(
        self, action_space: spaces.Box, memory: float = 0.8, spread: float = 0.5, seed: int = 0
    ) -> None:
        check_bounded(action_space)
        if not 0.0 <= memory < 1.0:
            raise ValueError(f"`memory` must be in [0, 1), got {memory!r}.")
        if not 0.0 < spread <= 2.0:
            raise ValueError(f"`spread` must be in (0, 2], got {spread!r}.")
        self.memory, self.spread = memory, spread
        self._middle = (action_space.high + action_space.low) / 2
        self._half = (action_space.high - action_space.low) / 2
        self._generator = spawned_generator(seed)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Draw actions (B, 7); the memory is the noise (B, 7) of the call before."""
        noise = self._generator.standard_normal((len(observation["observation"]), 7))
        if state is not None:
            kept = self.memory * state + np.sqrt(1 - self.memory**2) * noise
            noise = np.where(episode_start[:, None], noise, kept)
        actions = self._middle + self._half * np.clip(self.spread * noise, -1, 1)
        return actions.astype(np.float32), noise
