"""`jepa-gym correct`: what an expert would have done, recorded with the shipped model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_gym import make_env
from jepa_gym.agents import make_agent
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.safetensors_file import read_safetensors
from jepa_gym.training.collection.correct import CorrectConfig, correct
from jepa_gym.training.data import corrections
from jepa_gym.training.data.corrections import CorrectionSampler, read_corrections, read_index


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corrections") / "run"
    config = CorrectConfig(
        checkpoint="default",
        output=folder,
        episodes=2,
        tasks=("grasp",),
        objects=("box",),
        workers=1,
    )
    correct(config)
    return config


def test_records_what_the_expert_wants_in_the_states_that_were_met(config):
    steps, _ = read_safetensors(config.output / "300000.safetensors")
    agent = make_agent("gc-idm", model="default")
    env = make_env(agent.model, "grasp", obj="box", protocol="one", obs_mode="both")
    observation, _ = env.reset(seed=300_000)
    assert len(steps["states"]) == 12
    np.testing.assert_allclose(steps["states"][0], observation["observation"], atol=1e-6)
    np.testing.assert_allclose(steps["actions"][0], env.unwrapped.expert_action(), atol=1e-6)
    latents, goals = agent.model.observe({k: x[None] for k, x in observation.items()})
    torch.testing.assert_close(steps["latents"][0], latents[0].half())
    torch.testing.assert_close(steps["goals"], goals.half().expand(12, -1, -1))
    moved = (steps["states"][1:, :3] - steps["states"][:-1, :3]).norm(dim=1)
    assert moved.max() > 0.02


def test_goes_on_where_it_stopped(config):
    before = (config.output / "300000.safetensors").stat().st_mtime_ns
    lost = config.output / "300001.safetensors"
    content = lost.read_bytes()
    lost.unlink()
    correct(config)
    assert lost.read_bytes() == content
    assert (config.output / "300000.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another tasks: give the same"):
        correct(replace(config, tasks=("reach",)))


def test_sampler_draws_steps_of_the_split(config, monkeypatch):
    monkeypatch.setattr(
        corrections, "split_of", lambda name: "train" if name == "300000" else "test"
    )
    found = read_corrections([config.output], read_index(config.output)["encoder"])
    assert {split: len(steps) for split, steps in found.items()} == {"train": 12, "validation": 12}
    sampler = CorrectionSampler(found["train"], 64, 0)
    batch, again = sampler.batch(3), sampler.batch(3)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    assert batch["steps"].tolist() == [0] * 64 and batch["goals"].dtype == torch.float16
    pairs = {tuple(x) for x in torch.cat([batch["states"], batch["actions"]], 1).tolist()}
    train = torch.cat([found["train"].states, found["train"].actions], 1).tolist()
    assert len(pairs) > 6 and pairs <= {tuple(x) for x in train}


def test_refuses_what_it_cannot_use(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="`jepa-gym correct` has written"):
        read_corrections([tmp_path], "x")
    with pytest.raises(ValueError, match="another world model"):
        read_corrections([config.output], "x")
    with pytest.raises(ValueError, match="falls into the validation split"):
        read_corrections([config.output], read_index(config.output)["encoder"])
    with pytest.raises(ValueError, match="kept for evaluation"):
        replace(config, seed=999_999)
    with pytest.raises(ValueError, match="task"):
        replace(config, tasks=("graps",))
    broken = config.output / "300000.safetensors"
    content = broken.read_bytes()
    broken.write_bytes(content[:-5])
    try:
        with pytest.raises(CheckpointError):
            read_corrections([config.output], read_index(config.output)["encoder"])
    finally:
        broken.write_bytes(content)
