"""Where latent episodes start, and what is said about starts that do not fit."""

from __future__ import annotations

import json
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest

import jepa_gym  # noqa: F401
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.start_frames import StartFrames, write_starts
from jepa_gym.latent.starts import start_options
from jepa_gym.world_model import WorldModel

ENV_ID = "JEPALatent-v0"


@pytest.fixture
def loaded(checkpoint):
    return WorldModel.from_pretrained(checkpoint)


@pytest.fixture
def given():
    rng = np.random.default_rng(5)
    frame, goal = rng.integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    return {"frame": frame, "state": rng.uniform(0, 1, 7), "goal": goal}


def some_frames(count=4, columns=64):
    frames = np.random.default_rng(1).integers(0, 256, (2, count, 32, columns, 3), dtype=np.uint8)
    states = np.arange(count * 7, dtype=np.float32).reshape(count, 7) / 100
    return StartFrames(frames[0], states, frames[1], states)


def test_held_out_frames_by_default(loaded):
    _, info = gym.make(ENV_ID, model=loaded).reset(seed=0)
    assert info["source"] == "checkpoint" and 0 <= info["index"] < 3
    assert info["goal_state"].shape == (7,)


@pytest.mark.parametrize("kind", ["object", "arrays", "folder"])
def test_a_dataset(loaded, kind, tmp_path):
    data = frames = some_frames()
    if kind == "arrays":
        data = asdict(frames)
    elif kind == "folder":
        data = tmp_path / "starts"
        write_starts(data, frames)
    env = gym.make(ENV_ID, model=loaded, starts="dataset", data=data)
    observation, info = env.reset(options={"index": 3})
    assert (info["source"], info["index"]) == ("dataset", 3)
    assert np.array_equal(observation["observation"], frames.states[3])
    assert info["ood"] == pytest.approx(0, abs=1e-4)


def test_recorded_states_must_be_states():
    frames = asdict(some_frames())
    frames["states"] = frames["states"] * np.float32(1e30)
    with pytest.raises(CheckpointError, match=r"`states`: states hold positions of .* m"):
        StartFrames(**frames)


def test_given_frames_and_latents(loaded, given):
    env = gym.make(ENV_ID, model=loaded)
    observation, info = env.reset(seed=0, options=given)
    assert (info["source"], info["index"]) == ("given", -1) and "goal_state" not in info
    np.testing.assert_array_equal(observation["observation"], given["state"].astype(np.float32))
    latent = observation["desired_goal"]
    again, info = env.reset(options=given | {"goal": latent, "goal_state": np.ones(7)})
    np.testing.assert_allclose(again["desired_goal"], latent, atol=1e-6)
    assert (info["goal_state"] == 1).all() and info["energy"] > 0
    given["frame"][:] = 0  # what was given was copied
    assert env.unwrapped._episodes.starts[0].frame.any()


def test_a_model_without_start_frames(model, given):
    with pytest.raises(ValueError, match="starts='given'"):
        gym.make(ENV_ID, model=model)
    with pytest.raises(ValueError, match="max_ood"):
        gym.make(ENV_ID, model=model, starts="given", max_ood=1.0)
    env = gym.make(ENV_ID, model=model, starts="given")
    with pytest.raises(ValueError, match="before anything else"):
        env.reset(seed=0)
    first, info = env.reset(options=given)
    assert np.isnan(info["ood"])
    again, _ = env.reset()  # the last given one again
    assert np.array_equal(first["achieved_goal"], again["achieved_goal"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frame": np.zeros((32, 32, 3), np.uint8)}, ValueError, r"got shape \(32, 32, 3\)"),
        ({"frame": np.zeros((32, 64, 3), np.float32)}, TypeError, "uint8, got float32"),
        ({"state": np.zeros(6)}, ValueError, "7 finite numbers"),
        ({"state": np.full(7, np.nan)}, ValueError, "7 finite numbers"),
        ({"goal": np.zeros((9, 16), np.float32)}, ValueError, r"\(8, 16\).*got shape \(9, 16\)"),
        ({"goal": np.full((8, 16), np.inf)}, ValueError, "finite"),
        ({"goal": np.zeros((32, 60, 3), np.uint8)}, ValueError, "or its latent"),
        ({"goal": np.zeros((32, 64, 3))}, TypeError, "or its latent"),
        ({"goal_state": np.zeros(3)}, ValueError, "goal_state"),
        ({"goal_state": np.full(7, 1e30)}, ValueError, "`goal_state` is no state: .*metres"),
        ({"state": ["0.1"] * 7}, ValueError, "7 finite numbers"),
        ({"state": np.zeros(7, complex)}, ValueError, "7 finite numbers"),
        ({"index": 0}, ValueError, "not both"),
        ({"colour": 0}, ValueError, "colour"),
    ],
)
def test_starts_that_do_not_fit(loaded, given, change, error, message):
    with pytest.raises(error, match=message):
        gym.make(ENV_ID, model=loaded).unwrapped.reset(options=given | change)


def test_a_start_is_given_whole(loaded, given):
    del given["goal"]
    with pytest.raises(ValueError, match="goal"):
        gym.make(ENV_ID, model=loaded).unwrapped.reset(options=given)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"starts": "frames"}, ValueError, "`starts` must be"),
        ({"starts": "dataset"}, ValueError, "dataset_starts"),
        ({"starts": "dataset", "data": {"frames": 0}}, ValueError, "must hold the arrays"),
        ({"starts": "dataset", "data": some_frames(columns=32)}, CheckpointError, "model takes"),
        ({"data": some_frames()}, ValueError, "starts='dataset'"),
        (
            {"starts": "dataset", "data": "recorded/franka"},
            FileNotFoundError,
            r"data=jepa_gym.training.data.starts.dataset_starts\('recorded/franka'\)",
        ),
    ],
)
def test_sources_that_do_not_fit(loaded, kwargs, error, message):
    with pytest.raises(error, match=message):
        gym.make(ENV_ID, model=loaded, **kwargs)


def test_a_real_environment(loaded, pixel_env_id):
    kwargs = {"model": loaded, "starts": pixel_env_id, "data": {"shade": 7}}
    env = gym.make(ENV_ID, **kwargs)
    observation, info = env.reset(seed=4)
    assert (info["source"], info["index"]) == (pixel_env_id, -1)
    source = env.unwrapped._episodes.source.env
    assert source.unwrapped.kwargs == loaded.config.frame.env_kwargs() | {"shade": 7}
    again, _ = env.reset(seed=4)
    assert np.array_equal(observation["achieved_goal"], again["achieved_goal"])
    other, _ = env.reset()
    assert not np.array_equal(observation["achieved_goal"], other["achieved_goal"])
    with pytest.raises(ValueError, match="means nothing"):
        env.reset(options={"index": 0})
    env.close()
    assert source.unwrapped.closed
    vector = gym.make_vec(ENV_ID, num_envs=2, **kwargs)
    batch, _ = vector.reset(seed=4)
    np.testing.assert_allclose(batch["achieved_goal"][0], observation["achieved_goal"], atol=1e-5)


def test_what_a_real_environment_shows_now(loaded, pixel_env_id):
    real = gym.make(pixel_env_id, **loaded.config.frame.env_kwargs())
    observation, _ = real.reset(seed=0)
    env = gym.make(ENV_ID, model=loaded)
    seen, info = env.reset(options=start_options(observation))
    assert info["source"] == "given"
    assert np.array_equal(seen["observation"], observation["observation"])
    assert np.array_equal(info["goal_state"], observation["goal_state"])
    with pytest.raises(ValueError, match=r"lacks \['goal_pixels', 'pixels'\]"):
        start_options({"observation": observation["observation"]})


def test_the_spec_is_json(pixel_env_id, checkpoint):
    env = gym.make(ENV_ID, checkpoint=str(checkpoint), starts=pixel_env_id, data={"shade": 1})
    assert json.loads(env.spec.to_json())["kwargs"]["data"] == {"shade": 1}
