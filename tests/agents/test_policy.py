"""Trained policies: ours run no code and act as Stable-Baselines3's; others' ask for a flag."""

from __future__ import annotations

import base64
import json
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO, SAC, TD3

from jepa_gym.agents import make_agent
from jepa_gym.agents.policy import write_policy
from jepa_gym.checkpoint.safetensors_file import write_safetensors

from ..mutations import damage, no_code_runs  # noqa: F401  (a fixture)

WIDTHS = {"achieved_goal": 3, "desired_goal": 3, "observation": 7}
HIGH = np.float32([0.075] * 3 + [0.3] * 3 + [1])
SIZES = {"observation": WIDTHS, "action_low": (-HIGH).tolist(), "action_high": HIGH.tolist()}


class Blank(gym.Env):
    """The spaces of a Franka environment, and nothing behind them."""

    action_space = spaces.Box(-HIGH, HIGH)
    observation_space = spaces.Dict({k: spaces.Box(-2, 2, (n,)) for k, n in WIDTHS.items()})


def observation(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=(count, n)).astype(np.float32) for key, n in WIDTHS.items()}


@pytest.fixture(scope="module")
def learner() -> SAC:
    return SAC("MultiInputPolicy", Blank(), policy_kwargs={"net_arch": [32, 16]}, buffer_size=1)


@pytest.fixture
def own(learner, tmp_path) -> Path:
    write_policy(tmp_path / "own.safetensors", learner.actor.state_dict(), SIZES)
    return tmp_path / "own.safetensors"


@pytest.mark.parametrize("name", ["policy", "sac"])
def test_our_policy_acts_as_the_one_that_was_trained(learner, own, name):
    agent = make_agent(name, path=own)
    many = observation(5) | {"pixels": np.zeros((5, 2, 2, 3), np.uint8)}
    expected, _ = learner.predict({key: many[key] for key in WIDTHS}, deterministic=True)
    np.testing.assert_allclose(agent.predict(many)[0], expected, atol=1e-6)
    one = {key: value[0] for key, value in many.items()}
    np.testing.assert_allclose(agent.predict(one)[0], expected[0], atol=1e-6)


def test_a_shipped_policy_is_found_by_its_name():
    agent = make_agent("sac", path="sac-reach")
    with gym.make("FrankaReach-v0", obs_mode="state") as env:
        for seed in range(3):
            seen, info = env.reset(seed=seed)
            done = False
            while not done:
                action, _ = agent.predict(seen)
                seen, _, _, done, info = env.step(action)
            assert info["success_at_end"]
    with pytest.raises(FileNotFoundError, match="name a shipped one: sac-reach"):
        make_agent("sac", path="sac-juggle")


def test_draws_are_those_of_the_trained_distribution(learner, own):
    agent = make_agent("policy", path=own, seed=3)
    many = {key: np.repeat(value, 4000, axis=0) for key, value in observation(1).items()}
    drawn, _ = agent.predict(many, deterministic=False)
    theirs, _ = learner.predict(many, deterministic=False)
    assert (np.abs(drawn) <= HIGH).all()
    np.testing.assert_allclose(drawn.mean(0) / HIGH, theirs.mean(0) / HIGH, atol=0.06)
    np.testing.assert_allclose(drawn.std(0) / HIGH, theirs.std(0) / HIGH, atol=0.04)
    again, _ = make_agent("policy", path=own, seed=3).predict(many, deterministic=False)
    np.testing.assert_array_equal(drawn, again)


def test_a_missing_or_other_entry_is_named(own):
    seen = observation(1)
    latents = seen | {"desired_goal": np.zeros((1, 8, 4), np.float32)}
    with pytest.raises(ValueError, match=r"the observation has .*'desired_goal': \(8, 4\)"):
        make_agent("policy", path=own).predict(latents)
    del seen["desired_goal"]
    with pytest.raises(ValueError, match=r"trained on .*'desired_goal': \(3,\)"):
        make_agent("policy", path=own).predict(seen)


def test_a_missing_or_wrong_file_is_an_error(own, tmp_path):
    with pytest.raises(FileNotFoundError, match="No trained policy at"):
        make_agent("policy", path=tmp_path / "nothing.zip")
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        make_agent("policy", path=tmp_path / "weights.pt")
    own.write_bytes(own.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated or no safetensors"):
        make_agent("policy", path=own)


@pytest.mark.parametrize(
    "change",
    [
        {"observation": WIDTHS | {"observation": 8}},
        {"action_low": [0.0]},
        {"action_high": ["x"] * 7},
        {"observation": {key: 10**9 for key in WIDTHS}},
        {"observation": [1, 2]},
    ],
)
def test_sizes_that_do_not_fit_the_weights_are_an_error(learner, tmp_path, change):
    actor = {name: x.clone() for name, x in learner.actor.state_dict().items()}
    path = tmp_path / "wrong.safetensors"
    write_safetensors(path, actor, {"policy": json.dumps(SIZES | change)})
    with pytest.raises(ValueError, match=r"wrong\.safetensors is no policy"):
        make_agent("policy", path=path)
    del actor["mu.bias"]
    write_safetensors(path, actor, {"policy": json.dumps(SIZES)})
    with pytest.raises(ValueError, match="is no policy of"):
        make_agent("policy", path=path)
    write_safetensors(path, {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="is no policy of"):
        make_agent("policy", path=path)


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_strangers_zip_runs_no_code_without_the_flag(learner, tmp_path):
    path, touched = tmp_path / "theirs.zip", tmp_path / "touched"
    learner.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(members["data"])
    armed = base64.b64encode(pickle.dumps(Touch(touched))).decode()
    data["lr_schedule"][":serialized:"] = armed
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    for name in ("policy", "sac"):
        with pytest.raises(ValueError, match=r"runs the code in it.*--allow-pickle"):
            make_agent(name, path=path)
    assert not touched.exists()
    with pytest.warns(RuntimeWarning, match="runs the code in it"), suppress(TypeError):
        make_agent("policy", path=path, allow_pickle=True)  # which then has no schedule
    assert touched.exists()  # the file was armed


@pytest.mark.parametrize("algorithm", [SAC, PPO, TD3])
def test_anyones_zip_acts_with_the_flag(tmp_path, algorithm):
    memory = {} if algorithm is PPO else {"buffer_size": 10}
    theirs = algorithm("MultiInputPolicy", Blank(), policy_kwargs={"net_arch": [8]}, **memory)
    theirs.save(tmp_path / "theirs.zip")
    with pytest.warns(RuntimeWarning, match="runs the code in it"):
        agent = make_agent("policy", path=tmp_path / "theirs.zip", allow_pickle=True)
    assert type(agent.policy) is algorithm
    seen = observation(2)
    expected, _ = theirs.predict(seen, deterministic=True)
    np.testing.assert_array_equal(agent.predict(seen)[0], expected)


def test_another_zip_is_refused_before_anything_of_it_is_opened(tmp_path):
    path = tmp_path / "other.zip"
    for content in ({}, {"policy_class": {"__module__": "somewhere.else"}}):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("data", json.dumps(content))
        with (
            pytest.warns(RuntimeWarning, match="runs the code"),
            pytest.raises(ValueError, match=r"other\.zip (is no policy|has the policy class)"),
        ):
            make_agent("policy", path=path, allow_pickle=True)
    path.write_bytes(b"PK")
    with (
        pytest.warns(RuntimeWarning, match="runs the code"),
        pytest.raises(ValueError, match="is no policy of Stable-Baselines3"),
    ):
        make_agent("policy", path=path, allow_pickle=True)


@pytest.mark.usefixtures("no_code_runs")
def test_damaged_policies_are_refused_or_act_alike(own):
    wanted = make_agent("policy", path=own).predict(observation(3))[0]

    def same(got) -> bool:
        return np.array_equal(got, wanted)

    def act() -> np.ndarray:
        return make_agent("policy", path=own).predict(observation(3))[0]

    errors = (ValueError, FileNotFoundError, RuntimeError)
    assert damage(own.parent, [own.name], act, same, errors, count=50) > 25
