"""Goals from recorded episodes."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.dataset import split_of
from jepa_gym.training.data.dataset_goals import DatasetGoals
from jepa_gym.training.data.episodes import read_episode


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goals") / "data"
    small = {"steps": 8, "image_size": 32, "camera": "left", "objects": ("box",)}
    collect(CollectConfig(output=folder, episodes=40, workers=1, **small))
    return folder


@pytest.fixture
def env(data):
    with DatasetGoals(gym.make("FrankaReach-v0", image_size=32), data, gap=(3, 6)) as env:
        yield env


def test_start_and_goal_are_frames_of_one_test_episode(env, data):
    for seed in range(5):
        observation, info = env.reset(seed=seed)
        name, start, goal = (info["recorded"][key] for key in ("episode", "start", "goal"))
        assert split_of(name) == "test" and 3 <= goal - start <= 6
        states = read_episode(data / "episodes" / name, cameras=()).states
        np.testing.assert_allclose(observation["observation"], states[start], atol=1e-5)
        np.testing.assert_allclose(observation["goal_state"], states[goal], atol=1e-5)
        np.testing.assert_allclose(observation["desired_goal"], states[goal][:3], atol=1e-5)
        assert not info["is_success"]


def test_seed_decides_which_frames(env):
    first = [env.reset(seed=4)[1]["recorded"], env.reset()[1]["recorded"]]
    again = [env.reset(seed=4)[1]["recorded"], env.reset()[1]["recorded"]]
    assert first == again


def test_what_cannot_be_is_said(data):
    with (
        gym.make("FrankaReach-v0", obs_mode="state", obj="cup") as cup,
        pytest.raises(FileNotFoundError, match="test episode with the object 'cup'"),
    ):
        DatasetGoals(cup, data)
    with gym.make("FrankaReach-v0", obs_mode="state") as box:
        with pytest.raises(ValueError, match="gap"):
            DatasetGoals(box, data, gap=(0, 3))
        with pytest.raises(RuntimeError, match="record more episodes or widen `gap`"):
            DatasetGoals(box, data, gap=(50, 60)).reset(seed=0)
