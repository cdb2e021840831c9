"""What the tests of the Franka suite share."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import jepa_gym

IDS = tuple(jepa_gym.TASKS.values())


@pytest.fixture
def make():
    """Make environments that are closed at the end of the test."""
    made = []

    def build(env_id: str, **kwargs):
        env = gym.make(env_id, **kwargs)
        made.append(env)
        return env

    yield build
    for env in made:
        env.close()


@pytest.fixture(params=IDS)
def env_id(request):
    """Each id of the suite in turn."""
    return request.param


@pytest.fixture
def rollout():
    """Return `rollout(env, seed, steps)`."""
    return _rollout


@pytest.fixture
def play_expert():
    """Return `play_expert(env, seed)`."""
    return _play_expert


def _rollout(env, seed: int, steps: int) -> list[np.ndarray]:
    """Reset from `seed`, act randomly (seeded too) and return every array that was observed."""
    observation, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    seen = list(observation.values())
    for _ in range(steps):
        observation, reward, *_ = env.step(env.action_space.sample())
        seen += [*observation.values(), np.array(reward)]
    return seen


def _play_expert(env, seed: int) -> dict:
    """Let the expert play an episode; return its last info."""
    env.reset(seed=seed)
    truncated, info = False, {}
    while not truncated:
        *_, truncated, info = env.step(env.unwrapped.expert_action())
    return info
