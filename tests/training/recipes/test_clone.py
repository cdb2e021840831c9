"""Behaviour cloning on states, at toy size: recordings in, a policy for the suite out."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from safetensors import safe_open

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.agents import make_agent
from jepa_gym.training.collection.collect import collect
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes import clone

from ..conftest import read_log


@pytest.fixture
def config(dataset_folder, tmp_path):
    return clone.CloneConfig(
        data=dataset_folder, output=tmp_path / "run", steps=200, eval_every=100, threads=1
    )


def test_learns_and_acts_in_the_suite(config):
    progress = clone.train(config)
    losses = [x["loss"] for x in read_log(config.output) if "loss" in x]
    assert losses[-1] < 0.85 * losses[0]
    assert clone.train(config).step == progress.step  # nothing is left to do
    path = config.output / "policy.safetensors"
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["policy"])["card"]
    assert card["dataset hash"] == Dataset.open(config.data).hash
    agent = make_agent("policy", path=path)
    with gym.make("FrankaReach-v0", obs_mode="state") as env:
        observation, _ = env.reset(seed=500_000)
        action, _ = agent.predict(observation)
        assert env.action_space.contains(action)
        assert (action[3:6] == 0).all() and np.abs(action[:3]).min() > 0


def test_objects_are_where_the_recording_says(tmp_path):
    settings = {"task": "grasp", "objects": ("box",), "workers": 1, "image_size": 32, "steps": 6}
    data = tmp_path / "data"
    collect(CollectConfig(data, episodes=2, behaviours={"expert": 1.0}, **settings))
    dataset = Dataset.open(data)
    config = clone.CloneConfig(data=data, output=tmp_path / "run", task="grasp", batch_size=64)
    bounds = np.array([0.075, 0.075, 0.075, 1], np.float32)
    sampler = clone.StateSampler(dataset, "train", config, bounds)
    first = sampler.places[:, 0]
    assert (np.abs(first[:, 2] - 0.03) < 0.03).all(), "objects stand on the table"
    batch = sampler.batch(0)
    assert set(batch["actions"][:, 3].tolist()) <= {-1.0, 0.0, 1.0}
    assert np.abs(batch["actions"].numpy()).max() <= 1


def test_refuses_what_it_cannot_learn(config):
    with pytest.raises(ValueError, match="nobody knows where its object is"):
        clone.train(replace(config, task="grasp"))
    with pytest.raises(ValueError, match="task"):
        replace(config, task="graps")
