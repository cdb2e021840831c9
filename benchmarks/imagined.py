"""One episode of a policy in imagination, from the picture that a real episode starts with."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.agents.base import GRIPPER
from jepa_gym.benchmarks.episodes import world_model
from jepa_gym.latent.starts import start_options


@functools.cache
def imagination(checkpoint: str, steps: int) -> gym.Env:
    """Return this process's `JEPALatent-v0` for episodes of so many steps."""
    return gym.make(
        "JEPALatent-v0",
        model=world_model(checkpoint),
        starts="given",
        clip_actions=True,
        max_episode_steps=steps,
    )


def imagine(
    checkpoint: str,
    start: Mapping[str, np.ndarray],
    steps: int,
    policy: Any = None,
    moves: np.ndarray | None = None,
) -> tuple[list[bool], np.ndarray]:
    """Play an episode in imagination.

    What stops closing fingers is the width of what is between them, which nothing imagined does: a
    policy's command to close is imagined up to the goal's closedness where the goal shows a gripper
    that is closed in part, as around an object.

    Args:
        checkpoint: The world model.
        start: First observation of the real episode, with pictures.
        steps: T.
        policy: Acts on latents, by a `predict` as that of `Agent`.
        moves: (T, 7), what happens instead of a policy's actions.

    Returns:
        Whether the imagined frame counts as success, after each of T steps, and its latents
        (T, N, D).

    Raises:
        ValueError: If neither or both of `policy` and `moves` are given.
    """
    if (policy is None) == (moves is None):
        raise ValueError("give one of `policy` and `moves`")
    env, memory, success, latents = imagination(checkpoint, steps), None, [], []
    observation, _ = env.reset(options=start_options(start))
    for step in range(steps):
        if moves is not None:
            action = moves[step]
        else:
            action, memory = policy.predict(observation, memory, episode_start=step == 0)
            action = stopped(action, observation["observation"], start["goal_state"])
        observation, *_, info = env.step(action)
        success.append(bool(info["is_success"]))
        latents.append(observation["achieved_goal"])
    return success, np.stack(latents)


def stopped(action: np.ndarray, state: np.ndarray, goal_state: np.ndarray) -> np.ndarray:
    """Return an action whose change of the gripper ends at its stops, or at the goal's width.

    Args:
        action: (7,).
        state: (7,), now.
        goal_state: (7,).
    """
    action, closed = action.copy(), float(goal_state[GRIPPER])
    highest = closed if 0.1 < closed < 0.95 and state[GRIPPER] <= closed else 1.0
    after = np.clip(state[GRIPPER] + action[GRIPPER], 0.0, highest)
    action[GRIPPER] = after - state[GRIPPER]
    return action
