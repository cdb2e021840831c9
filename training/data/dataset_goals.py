"""Goals from a dataset: start and goal are two frames of one recorded episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.envs.tasks.episode import GoalError
from jepa_gym.training.data.dataset import Dataset, episode_folders, split_of
from jepa_gym.training.data.episodes import read_episode, read_metadata

ATTEMPTS = 200


class DatasetGoals(gym.Wrapper):
    """Start each episode in one frame of a recording and ask for a later frame of it.

    The recorded simulator states are restored, so both pictures are rendered with the environment's
    own cameras and are consistent to the last contact. Pairs are drawn from the test
    episodes (`jepa_gym.training.data.dataset.split_of`) until the goal is a success of the
    environment's task and the start is not.

    Args:
        env: A Franka environment that looks plain (no split, no distractors).
        data: Folder of a dataset recorded by `jepa-gym collect`.
        gap: Least and greatest number of recorded steps from start to goal.

    Raises:
        FileNotFoundError: If there is no dataset, or no test episode with the environment's object.
        ValueError: If the gap is out of range.
    """

    def __init__(self, env: gym.Env, data: str | Path, gap: tuple[int, int] = (3, 10)) -> None:
        super().__init__(env)
        if not 1 <= gap[0] <= gap[1]:
            raise ValueError(f"`gap` must be (least, greatest) with 1 <= least, got {gap}")
        self.gap = gap
        folder = Dataset.open(data).folder
        obj = env.get_wrapper_attr("obj")
        self._folders = [
            path
            for path in episode_folders(folder)
            if split_of(path.name) == "test" and read_metadata(path).get("object") == obj
        ]
        if not self._folders:
            raise FileNotFoundError(f"{folder} holds no test episode with the object {obj!r}")
        self._generator = np.random.default_rng()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset to a drawn pair of frames; `info["recorded"]` names episode, start and goal.

        Raises:
            RuntimeError: If no pair of frames fits the task.
        """
        if seed is not None:
            self._generator = np.random.default_rng(seed)
        for _ in range(ATTEMPTS):
            folder = self._folders[self._generator.integers(len(self._folders))]
            states = read_episode(folder, cameras=()).sim_state
            gap = int(self._generator.integers(self.gap[0], self.gap[1] + 1))
            if states is None or gap >= len(states):
                continue
            start = int(self._generator.integers(len(states) - gap))
            recorded = {"start": states[start], "goal": states[start + gap]}
            try:
                found = self.env.reset(seed=seed, options=(options or {}) | {"recorded": recorded})
            except GoalError:
                continue
            observation, info = found
            if not info["is_success"]:
                info["recorded"] = {"episode": folder.name, "start": start, "goal": start + gap}
                return observation, info
        raise RuntimeError(
            f"none of {ATTEMPTS} pairs of recorded frames is an episode of "
            f"{type(self.unwrapped).__name__}; record more episodes or widen `gap`"
        )
