"""SAC with hindsight goals: a few steps of training, saved, loaded, and its bounds."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents import make_agent
from jepa_gym.agents.sac import train


def test_trains_saves_and_acts_in_bounds(tmp_path):
    path = train("FrankaReach-v0", steps=120, path=tmp_path / "runs" / "reach.zip", seed=1)
    agent = make_agent("sac", path=path)
    with gym.make("FrankaReach-v0", obs_mode="state") as env:
        observation, _ = env.reset(seed=5)
        action, _ = agent.predict({**observation, "pixels": np.zeros((2, 2, 3), np.uint8)})
        assert env.action_space.contains(action)
        expected, _ = SAC.load(path, env=env).predict(observation, deterministic=True)
    np.testing.assert_array_equal(action, expected)
    batch = {key: np.stack([value] * 3) for key, value in observation.items()}
    assert agent.predict(batch)[0].shape == (3, 7)
    del observation["desired_goal"]
    with pytest.raises(ValueError, match=r"lacks \['desired_goal'\]"):
        agent.predict(observation)


def test_missing_policy_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No trained policy at"):
        make_agent("sac", path=tmp_path / "nothing.zip")
