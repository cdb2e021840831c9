"""What an agent that plans refuses, and of what it warns."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from jepa_gym import WorldModel
from jepa_gym.agents import make_agent
from jepa_gym.agents.guards import Familiar, UnfamiliarPictureWarning
from jepa_gym.agents.planners.cem import CEMConfig
from jepa_gym.checkpoint.start_frames import read_starts

QUICK = CEMConfig(samples=8, iterations=1, top_k=2)


@pytest.fixture(scope="module")
def agent():
    model = WorldModel.from_pretrained("default")
    return make_agent("mpc-cem", model=model, config=QUICK)


@pytest.fixture(scope="module")
def observations(agent) -> list[dict[str, np.ndarray]]:
    starts = read_starts(agent.model.folder)
    rows = zip(starts.frames, starts.states, starts.goal_frames, starts.goal_states, strict=True)
    return [
        {"pixels": x, "observation": s, "goal_pixels": y, "goal_state": g} for x, s, y, g in rows
    ]


def states(seen, **entries: float):
    state = seen["observation"].copy()
    for name, value in entries.items():
        state["xyzrpwc".index(name)] = value
    return seen | {"observation": state}


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda o: states(o, x=450.0), "metres .millimetres"),
        (lambda o: states(o, w=-35.0), "radians .degrees"),
        (lambda o: states(o, c=40.0), "closedness .* in .0, 1."),
        (lambda o: states(o, x=1.2), r"x = 1.2 m; .* between 0.10 and 0.89 m"),
        (lambda o: states(o, z=-0.9), r"z = -0.9 m; .* base frame"),
        (lambda o: states(o, r=3.1), r"roll = 3.1 rad; .*DROID, of the flange"),
        (lambda o: states(o, y=np.nan), "finite"),
        (lambda o: o | {"goal_state": 1000 * o["goal_state"]}, "`goal_state`"),
        (lambda o: o | {"pixels": o["pixels"] / 255.0}, "uint8.* give it 255"),
        (lambda o: o | {"pixels": o["pixels"].astype(np.int64)}, "uint8, .*, got int64"),
        (lambda o: o | {"pixels": o["pixels"] // 200}, "multiply by 255"),
        (lambda o: o | {"pixels": o["pixels"].transpose(2, 0, 1)}, "channels to the end"),
        (lambda o: o | {"goal_pixels": 0 * o["goal_pixels"]}, "`goal_pixels`.*gives nothing"),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be(agent, observations, spoil, told):
    with pytest.raises((ValueError, TypeError), match=told):
        agent.predict(spoil(observations[0]))


def test_units_are_guarded_without_a_world_model(model, observe):
    agent = make_agent("mpc-cem", model=model)
    with pytest.raises(ValueError, match="millimetres"):
        agent.predict(observe(np.full(7, 0.5), np.full(7, 0.5)) | {"observation": np.full(7, 90.0)})
    with pytest.raises(ValueError, match="robot's base"):
        far = np.array([1.0, 1.0, 0.2, 0, 0, 0, 0])
        agent.predict(observe(np.full(7, 0.5), np.full(7, 0.5)) | {"observation": far})


def test_is_quiet_about_real_frames_as_single_and_as_batch(agent, observations):
    batch = {key: np.stack([seen[key] for seen in observations]) for key in observations[0]}
    agent.predict(batch)  # warnings are errors in the tests
    agent.predict(observations[3])


def test_warns_once_an_episode(agent, observations):
    seen = observations[0]
    bad = seen | {"pixels": np.random.default_rng(0).integers(0, 256, seen["pixels"].shape, "u1")}
    with pytest.warns(UnfamiliarPictureWarning, match=r"`pixels` of the episodes \[0\] of 1"):
        _, memory = agent.predict(bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, memory = agent.predict(bad, memory)
        _, memory = agent.predict(seen, memory, episode_start=True)
    with pytest.warns(UnfamiliarPictureWarning):
        agent.predict(bad, memory)
    with pytest.warns(UnfamiliarPictureWarning, match="`goal_pixels`"):
        agent.predict(seen | {"goal_pixels": np.full_like(seen["goal_pixels"], 128)})


def test_can_be_switched_off(agent, observations):
    loose = make_agent("mpc-cem", model=agent.model, config=QUICK, guards=False)
    far = states(observations[0], x=1.2)
    grey = np.full_like(far["pixels"], 128)
    loose.predict(far | {"pixels": grey})


def test_tells_garbage_from_real_frames(agent):
    model = agent.model
    starts, familiar = read_starts(model.folder), Familiar.of(model)
    frames, hands = starts.frames, torch.from_numpy(starts.states).float()
    noise = np.random.default_rng(0).integers(0, 256, frames.shape, "u1")
    shown = {
        "real": frames, "black": np.full_like(frames, 2), "white": np.full_like(frames, 255),
        "grey": np.full_like(frames, 128), "noise": noise, "upside down": frames[:, ::-1].copy(),
    }  # fmt: skip
    told = {
        name: familiar.unlike(model, model.encode(x[:, None])[:, 0], hands, x).mean()
        for name, x in shown.items()
    }
    assert told["real"] == 0
    assert all(told[name] == 1 for name in ("black", "white", "grey", "noise")), told
    assert told["upside down"] > 0.05, told
