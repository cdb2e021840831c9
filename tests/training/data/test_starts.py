from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.data.starts import dataset_starts
from jepa_gym.world_model import WorldModel


def test_latent_episodes_start_from_test_frames(dataset_folder):
    starts = dataset_starts(dataset_folder, count=5)
    arrays = Dataset.open(dataset_folder).load_arrays("test")
    assert 1 <= len(starts) <= 5
    far = np.linalg.norm((starts.goal_states - starts.states)[:, :3], axis=1)
    assert (far > 0.08).all() and (far < 0.20).all()
    recorded = arrays.states.reshape(-1, 7)
    for state in starts.states:
        assert (recorded == state).all(1).any()
    encoder = EncoderConfig(embed_dim=16, depth=1, num_heads=1, latent_dim=8, patch_size=8)
    config = WorldModelConfig(FrameSpec(16, 32), encoder, PredictorConfig(16, 1, 1))
    model = WorldModel(config).eval()
    env = gym.make("JEPALatent-v0", model=model, starts="dataset", data=starts)
    observation, info = env.reset(seed=0)
    assert info["source"] == "dataset"
    assert np.array_equal(observation["observation"], starts.states[info["index"]])


def test_errors(dataset_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="not a dataset"):
        dataset_starts(tmp_path)
    with pytest.raises(ValueError, match="count"):
        dataset_starts(dataset_folder, count=0)
    with pytest.raises(ValueError, match="`split`"):
        dataset_starts(dataset_folder, split="all")


def test_takes_them_of_the_split_that_is_asked_for(dataset_folder):
    known = Dataset.open(dataset_folder).load_arrays("train").states
    starts = dataset_starts(dataset_folder, count=5, split="train")
    for state in starts.states:
        assert (np.abs(known - state).max(-1) == 0).any()
    held_out = dataset_starts(dataset_folder, count=5)
    assert not (np.abs(known - held_out.states[0]).max(-1) == 0).any()
