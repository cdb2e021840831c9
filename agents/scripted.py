"""The scripted expert, exact or noisy: full knowledge of the simulator."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.agents.base import Agent, InOneEnvironment, spawned_generator


class ScriptedAgent(InOneEnvironment, Agent):
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
        self.env: Any = env

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


class NoisyScriptedAgent(ScriptedAgent):
    """The scripted expert with noise on its moves and random moves in between.

    Its episodes show what wrong moves do and how they are put right, which demonstrations without
    mistakes never show.

    Args:
        env: As in `ScriptedAgent`.
        noise: Standard deviation of the noise on dx, dy, dz, as a share of the move's length: long
            moves miss, short ones are exact, so that most episodes still succeed.
        mistake_rate: Share of steps with a random action instead of the expert's.
        seed: Seed of the draws.

    Raises:
        TypeError: If the environment has no expert.
        ValueError: If a number is out of its range.
    """

    def __init__(
        self, env: gym.Env, noise: float = 0.05, mistake_rate: float = 0.05, seed: int = 0
    ) -> None:
        super().__init__(env)
        if not 0.0 <= noise <= 1.0:
            raise ValueError(f"`noise` must be in [0, 1], got {noise!r}.")
        if not 0.0 <= mistake_rate <= 1.0:
            raise ValueError(f"`mistake_rate` must be in [0, 1], got {mistake_rate!r}.")
        self.noise, self.mistake_rate = noise, mistake_rate
        self._generator = spawned_generator(seed)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Return the disturbed action (1, 7), within the bounds; see `Agent.act`."""
        action, state = super().act(observation, state, episode_start, deterministic)
        low, high = self.env.action_space.low, self.env.action_space.high
        if self._generator.random() < self.mistake_rate:
            action = self._generator.uniform(low, high)[None]
            action[:, 3:6] = 0.0  # a turned hand is no mistake that a demonstration shows
        spread = self.noise * np.linalg.norm(action[:, :3])
        action[:, :3] += spread * self._generator.standard_normal((1, 3))
        return np.clip(action, low, high).astype(np.float32), state
