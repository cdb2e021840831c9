"""Holding still: what a table must beat before anything in it counts as acting."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_gym.agents.base import ACTION_DIM, Agent


class StillAgent(Agent):
    """Answer every observation with the action of zeros."""

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Return zeros (B, 7); see `Agent.act`."""
        return np.zeros((len(observation["observation"]), ACTION_DIM), np.float32), state
