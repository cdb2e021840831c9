"""The inverse model's command at toy size: a world model and a dataset in, an agent out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from jepa_gym.agents import make_agent
from jepa_gym.checkpoint.beside import INVERSE, encoder_hash
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.cli import main
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.corrections import write_correction
from jepa_gym.training.data.dataset import Dataset
from jepa_gym.training.recipes import amortise, hindsight
from jepa_gym.world_model import WorldModel

from ..conftest import SIZE, read_log
from .test_decode import checkpoint as checkpoint


@pytest.fixture
def config(dataset_folder, checkpoint):
    return amortise.AmortiseConfig(
        data=dataset_folder,
        checkpoint=str(checkpoint),
        steps=60,
        eval_every=30,
        batch_size=64,
        threads=1,
    )


def test_learns_and_goes_on_where_it_was(config, checkpoint, capsys):
    progress = amortise.train(config)
    assert "inverse.safetensors" in capsys.readouterr().err
    log = read_log(checkpoint / "amortise")
    told = [line for line in log if "inverse_loss" in line]
    assert told[-1]["movement_cm"] > 0 and 0 <= told[-1]["gripper_right"] <= 1
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    model = WorldModel.from_pretrained(checkpoint)
    network = INVERSE.own(model)
    assert network is not None and not network.training
    with safe_open(checkpoint / "inverse.safetensors", "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["dataset hash"] == Dataset.open(config.data).hash
    assert amortise.train(config).step == progress.step
    agent = make_agent("gc-idm", model=model)
    pixels = np.random.default_rng(0).integers(256, size=(3, SIZE, 2 * SIZE, 3), dtype=np.uint8)
    observation = {"pixels": pixels, "goal_pixels": pixels[::-1], "observation": np.zeros((3, 7))}
    actions, memory = agent.predict(observation)
    assert actions.shape == (3, 7) and memory is None
    bound = model.config.frame.max_move_m
    assert (np.abs(actions[:, :3]) <= bound + 1e-6).all()
    assert set(actions[:, 6].tolist()) <= {0.0, 1.0}  # an open gripper opens no further
    for row in range(3):
        alone, _ = agent.predict({key: x[row] for key, x in observation.items()})
        np.testing.assert_allclose(alone, actions[row], atol=1e-5)


def test_goals_are_later_frames_of_the_episode():
    length, episodes = 9, 4
    latents = np.arange(episodes * length, dtype=np.float16).reshape(episodes, length, 1, 1)
    states = np.zeros((episodes, length, 7), np.float32)
    actions = np.zeros((episodes, length - 1, 7), np.float32)
    actions[..., 0] = np.arange(length - 1)
    rows, names = np.array([2, 0, 3]), ("a", "b", "c")
    weights = np.array([0.5, 0.5, 0.0])
    arrays = ClipArrays(latents, rows, names, states[rows], actions[rows], weights=weights)
    sampler = hindsight.GoalSampler(arrays, latents, 512, 0)
    batch = sampler.batch(3)
    here, there = (batch[key][:, 0, 0].int() for key in ("latents", "goals"))
    assert torch.equal(there - here, batch["steps"].int())
    assert torch.equal(here // length, there // length)
    assert set((here // length).tolist()) == {2, 0}  # the third is never drawn
    assert torch.equal(here % length, batch["actions"][:, 0].int())
    assert set(batch["steps"].tolist()) == set(range(1, length))
    assert (batch["steps"] <= hindsight.NEAR_STEPS).float().mean() > 0.4
    part = sampler.batch(3, slice(100, 200))
    assert all(torch.equal(part[key], batch[key][100:200]) for key in batch)


def test_needs_a_place_of_its_own(config, checkpoint, tmp_path):
    with pytest.raises(ValueError, match="--output"):
        amortise.train(replace(config, checkpoint="default"))
    with pytest.raises(ValueError, match=r"no inverse model beside it.*jepa-gym amortise"):
        make_agent("gc-idm", model=checkpoint)
    with pytest.raises(ValueError, match="no inverse model beside it"):
        make_agent("mpc-cem", model=checkpoint, proposals=True)


def test_refuses_other_views(config, checkpoint):
    model = WorldModel.from_pretrained(checkpoint)
    swapped = replace(model.config.frame, cameras=("wrist", "left"))
    WorldModel(replace(model.config, frame=swapped)).save_pretrained(checkpoint, {})
    with pytest.raises(ValueError, match="shows the views"):
        amortise.train(config)


def test_belongs_to_its_model(config, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["jepa-gym"])  # the command replaces it
    flags = {"data": config.data, "checkpoint": checkpoint, "steps": 2, "threads": 1}
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    assert main(["amortise", *words]) == 0
    other = WorldModel(WorldModel.from_pretrained(checkpoint).config)
    with pytest.raises(CheckpointError, match=r"another model.*jepa-gym amortise"):
        INVERSE.read(checkpoint, other)
    (checkpoint / "inverse.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        make_agent("mpc-cem", model=checkpoint)


def test_far_goals_are_approached_as_proposed_and_near_ones_searched(config, checkpoint):
    amortise.train(replace(config, steps=2))
    model = WorldModel.from_pretrained(checkpoint)
    rng = np.random.default_rng(1)
    pixels = rng.integers(256, size=(2, 4, SIZE, 2 * SIZE, 3), dtype=np.uint8)
    observation = {"pixels": pixels[0], "goal_pixels": pixels[1], "observation": np.zeros((4, 7))}
    given = {"model": model, "guards": False}  # noise is no picture that it was trained on
    proposed, _ = make_agent("gc-idm", model=model).predict(observation)
    always, _ = make_agent("mpc-cem", near_steps=0.0, **given).predict(observation)
    assert (np.linalg.norm(proposed[:, :3], axis=1) > 0.015).all() or (proposed[:, 6] != 0).all()
    np.testing.assert_allclose(always[:, :3], proposed[:, :3], atol=1e-6)
    assert (always[:, 3:6] == 0).all()  # what the planner does not search stays as it is
    searched, _ = make_agent("mpc-cem", near_steps=1e6, **given).predict(observation)
    alone, _ = make_agent("mpc-cem", proposals=False, **given).predict(observation)
    assert not np.allclose(searched, proposed)
    assert alone.shape == searched.shape


def test_half_of_a_batch_are_corrections(config, checkpoint, tmp_path):
    model = WorldModel.from_pretrained(checkpoint)
    shape = (10, model.config.num_tokens, model.config.encoder.latent_dim)
    drawn = torch.Generator().manual_seed(0)
    folder = tmp_path / "corrections"
    folder.mkdir()
    (folder / "corrections.json").write_text(json.dumps({"encoder": encoder_hash(model)}))
    wanted = torch.tensor([0.03, -0.02, 0.01, 0, 0, 0, 1.0])
    for number in range(60):  # the hash sends some of the names into each split
        steps = {name: torch.randn(shape, generator=drawn) for name in ("latents", "goals")}
        steps |= {"states": torch.zeros(10, 7), "actions": wanted.expand(10, 7)}
        write_correction(folder, f"{number:06d}", steps)
    amortise.train(replace(config, corrections=(folder,), steps=200, eval_every=100))
    told = [x for x in read_log(checkpoint / "amortise") if "corrected_cm" in x]
    assert told[-1]["corrected_cm"] < 0.1  # two centimetres for a network that never moves
    assert told[-1]["corrected_gripper_right"] > 0.95
    with pytest.raises(ValueError, match="not both"):
        replace(config, corrections=(folder,), advantage=1.0)
