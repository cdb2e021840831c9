"""Soft actor-critic with hindsight goals on state observations, through Stable-Baselines3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents.base import Agent

GOALS_PER_TRANSITION = 4
"""Hindsight goals drawn for every real one (the "future" strategy, arXiv 1707.01495)."""
NETWORK = [256, 256]
"""Widths of the hidden layers of actor and critics."""


class _ProgressBar(BaseCallback):
    """A bar over environment steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._bar = tqdm(total=steps, unit="step", desc="sac")

    def _on_step(self) -> bool:
        self._bar.update(1)
        return True

    def _on_training_end(self) -> None:
        self._bar.close()


class SACAgent(Agent):
    """A trained policy; it reads the entries of the observation that it was trained on.

    Stable-Baselines3 rescales its squashed actions to the physical bounds of the action space.

    Args:
        path: Zip file that `train` or Stable-Baselines3 saved.
        device: Torch device.

    Raises:
        FileNotFoundError: If there is no such file.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"No trained policy at {path}; train one with `jepa_gym.agents.sac.train`."
            )
        # acting needs no memory of training; the hindsight buffer could not be made without an env
        self.policy = SAC.load(
            path,
            device=device,
            replay_buffer_class=DictReplayBuffer,
            replay_buffer_kwargs={},
            buffer_size=1,
        )

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Ask the policy; see `Agent.act`.

        Raises:
            ValueError: If an entry the policy was trained on is missing.
        """
        keys = list(self.policy.observation_space.spaces)
        missing = [key for key in keys if key not in observation]
        if missing:
            raise ValueError(f"The policy was trained on {keys}; the observation lacks {missing}.")
        entries = {key: observation[key] for key in keys}
        return self.policy.predict(entries, state, episode_start, deterministic)


def train(
    env_id: str,
    steps: int,
    path: str | Path,
    seed: int = 0,
    device: str = "cpu",
    env_kwargs: dict[str, Any] | None = None,
) -> Path:
    """Train on state observations and save the policy.

    Args:
        env_id: A goal environment, such as `FrankaReach-v0`.
        steps: Environment steps.
        path: Zip file to write.
        seed: Seed of the environment, the networks and the exploration.
        device: Torch device.
        env_kwargs: More arguments of `gym.make`, such as `{"obj": "cup"}`.

    Returns:
        The file written.

    Raises:
        ValueError: If `path` does not end in .zip.
    """
    path = Path(path)
    if path.suffix != ".zip":
        raise ValueError(f"`path` must end in .zip, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    env = gym.make(env_id, **{"obs_mode": "state", **(env_kwargs or {})})
    try:
        horizon = env.spec.max_episode_steps
        policy = SAC(
            "MultiInputPolicy",
            env,
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs={
                "n_sampled_goal": GOALS_PER_TRANSITION,
                "goal_selection_strategy": "future",
            },
            learning_starts=min(10 * horizon, steps),
            learning_rate=1e-3,
            batch_size=256,
            gamma=0.95,
            tau=0.05,
            policy_kwargs={"net_arch": NETWORK},
            seed=seed,
            device=device,
        )
        policy.learn(total_timesteps=steps, callback=_ProgressBar(steps))
        temporary = path.with_name(f".{path.stem}.tmp.zip")
        policy.save(temporary)
        temporary.replace(path)
    finally:
        env.close()
    return path
