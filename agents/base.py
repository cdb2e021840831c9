"""What every agent is: Stable-Baselines3's `predict` over one observation or a batch of them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

ACTION_DIM = 7
"""dx dy dz (m), extrinsic-xyz Euler angles of the rotation (rad), change of closedness."""
GRIPPER = 6
"""Index of the closedness in a state and of its change in an action."""

Observation = Mapping[str, np.ndarray]


def spawned_generator(seed: int) -> np.random.Generator:
    """Return a generator of an agent's own.

    Gymnasium's generator of a seed is `default_rng(seed)`. An agent that drew from the same stream
    as the environment it acts in would draw what the environment draws.

    Args:
        seed: Seed of the agent; it may be that of the environment.
    """
    return np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])


class InOneEnvironment:
    """Something that reads the environment `env` itself: copies of it read the same one.

    A copy of the environment would stand still while the original is acted in.
    """

    env: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything but the environment."""
        memo[id(self.env)] = self.env
        copied = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class Agent(ABC):
    """A policy on goal environments with 7-D states and actions.

    An agent keeps nothing between calls: what it remembers of an episode travels in the `state`
    that `predict` takes and returns, so one agent serves many environments.
    """

    def predict(
        self,
        observation: Observation,
        state: Any = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Choose actions, with the signature of Stable-Baselines3.

        Args:
            observation: Dict observation of one environment (`observation` (7,)) or of a batch
                (`observation` (B, 7)), every other entry batched alike.
            state: Memory returned by the call before, or None at the first one.
            episode_start: (B,) bool, or one bool: where an episode starts and memory is cleared.
            deterministic: Give the same action for the same observation and state.

        Returns:
            Actions (7,) or (B, 7) float32 in physical units, and the memory for the next call.

        Raises:
            TypeError: If the observation is no dict with an entry `observation`.
            ValueError: If a shape does not fit.
        """
        if not isinstance(observation, Mapping) or "observation" not in observation:
            raise TypeError(
                "An agent needs a dict observation with the entry `observation` (the 7-D state), "
                f"got {type(observation).__name__}."
            )
        arrays = {key: np.asarray(value) for key, value in observation.items()}
        shape = arrays["observation"].shape
        if len(shape) not in (1, 2) or shape[-1] != ACTION_DIM:
            raise ValueError(f"`observation` must have shape (7,) or (B, 7), got {shape}.")
        single = len(shape) == 1
        if single:
            arrays = {key: value[None] for key, value in arrays.items()}
        batch_size = len(arrays["observation"])
        starts = _starts(episode_start, batch_size)
        actions, state = self.act(arrays, state, starts, deterministic)
        actions = np.asarray(actions, dtype=np.float32)
        if actions.shape != (batch_size, ACTION_DIM):
            raise ValueError(
                f"{type(self).__name__}.act must return actions ({batch_size}, {ACTION_DIM}), "
                f"got {actions.shape}."
            )
        return (actions[0] if single else actions), state

    @abstractmethod
    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Choose actions for a batch; what a subclass writes.

        Args:
            observation: Batched entries, `observation` (B, 7).
            state: Memory of the call before, or None.
            episode_start: (B,) bool, where memory is cleared.
            deterministic: As in `predict`.

        Returns:
            Actions (B, 7) in physical units, and the memory for the next call.
        """


def _starts(episode_start: np.ndarray | bool | None, batch_size: int) -> np.ndarray:
    """Return `episode_start` as a (B,) bool array."""
    starts = np.asarray(False if episode_start is None else episode_start, dtype=bool)
    if starts.ndim > 1 or starts.size not in (1, batch_size):
        raise ValueError(
            f"`episode_start` must be one bool or have shape ({batch_size},), got {starts.shape}."
        )
    return np.broadcast_to(starts, (batch_size,))
