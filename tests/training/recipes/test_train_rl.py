"""`train-rl`: a policy comes out, an interrupted training ends as another, errors are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from jepa_gym import make_env
from jepa_gym.agents import make_agent
from jepa_gym.commands import Terminated
from jepa_gym.latent.starts import start_options
from jepa_gym.training.recipes import rl_episodes, rl_storage, train_rl
from jepa_gym.training.recipes.train_rl import TrainRLConfig, main, train
from jepa_gym.world_model import WorldModel

STEPS = 130
"""Three episodes beyond the ten of random actions."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> TrainRLConfig:
    config = TrainRLConfig(
        tmp_path_factory.mktemp("whole") / "reach.safetensors",
        steps=STEPS, evaluations=2, eval_episodes=2,
    )  # fmt: skip
    train(config)
    return config


def equal(first: Path, second: Path) -> bool:
    one, other = load_file(first), load_file(second)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def learned(path: Path) -> dict[str, list]:
    """What a training goes on from, but for the evaluations, whose moments depend on its length."""
    tensors = load_file(path.with_name(f"{path.stem}.training.safetensors"))
    return {k: x.tolist() for k, x in tensors.items() if not k.startswith("best.")}


@pytest.mark.parametrize("algo", ["td3", "ddpg"])
def test_other_learners_go_on_and_their_policies_act_alike(tmp_path, algo):
    config = TrainRLConfig(
        tmp_path / "whole.safetensors", algo=algo, steps=144, evaluations=2, eval_episodes=1,
        env_id="FrankaGrasp-v0",
    )  # fmt: skip
    train(config)
    parts = replace(config, output=tmp_path / "parts.safetensors")
    train(replace(parts, steps=120))
    train(parts)
    assert learned(parts.output) == learned(config.output)
    agent = make_agent("policy", path=config.output)
    with gym.make("FrankaGrasp-v0", obs_mode="state") as env:
        observation, _ = env.reset(seed=5)
        action, _ = agent.predict(observation)
        assert env.action_space.contains(action) and (action[3:6] == 0).all()
        assert (action[[0, 1, 2, 6]] != 0).all()
    drawn, _ = agent.predict(observation, deterministic=False)
    np.testing.assert_array_equal(drawn, action)  # these learners have no distribution


def test_learns_in_imagination_and_acts_on_pictures(tmp_path, capsys):
    config = TrainRLConfig(
        tmp_path / "imagined.safetensors", env_id="JEPALatent-v0", algo="ppo", n_envs=4, steps=80,
        evaluations=1, eval_episodes=1,
    )  # fmt: skip
    train(config)
    assert "episodes of FrankaReach-v0 that chose it" in capsys.readouterr().err
    model = WorldModel.from_pretrained("default")
    agent = make_agent("policy", path=config.output, model=model)
    env = make_env(model, "reach", obs_mode="both")
    observation, _ = env.reset(seed=5)
    action, _ = agent.predict(observation)
    assert env.action_space.contains(action)
    assert (action[:3] != 0).all() and (action[3:] == 0).all()
    with pytest.raises(ValueError, match="trained on latents and sees pictures"):
        make_agent("policy", path=config.output).predict(observation)
    with pytest.raises(ValueError, match="latents of another world model"):
        make_agent("policy", path=config.output, model="vjepa-small").predict(observation)
    latent = gym.make("JEPALatent-v0", model=model, starts="given")
    seen, _ = latent.reset(options=start_options(observation))
    np.testing.assert_allclose(agent.predict(seen)[0], action, atol=1e-5)
    train(replace(config, steps=160))
    assert "continues after 80 steps" in capsys.readouterr().err
    with pytest.raises(ValueError, match="does not learn in JEPALatent-v0"):
        replace(config, algo="sac")


def test_the_best_policy_of_the_evaluations_is_written(tmp_path, monkeypatch):
    ranks = iter([0.2, 0.9, 0.5])

    def rated(model, env, episodes):
        return rl_episodes.Evaluation(model.num_timesteps, next(ranks), 1.0, 0.1)

    monkeypatch.setattr(rl_storage, "evaluate", rated)
    path = tmp_path / "reach.safetensors"
    train(TrainRLConfig(path, steps=STEPS, evaluations=3, eval_episodes=1))
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["policy"])
    assert told["best"]["success_at_end"] == 0.9 and len(told["curve"]) == 3
    tensors = load_file(path.with_name("reach.training.safetensors"))
    assert all(torch.equal(x, tensors[f"best.{name}"]) for name, x in load_file(path).items())
    assert list(path.with_suffix(".tensorboard").iterdir())


def test_the_policy_acts_in_bounds(whole):
    agent = make_agent("policy", path=whole.output)
    with gym.make("FrankaReach-v0", obs_mode="state") as env:
        observation, _ = env.reset(seed=5)
        action, _ = agent.predict(observation)
        assert env.action_space.contains(action)
    assert (action[:3] != 0).all() and (action[3:] == 0).all()  # reaching turns nothing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [1, 57, 111])
def test_a_stopped_training_goes_on_to_the_same_policy(
    whole, tmp_path, monkeypatch, capsys, number, after
):
    config = replace(whole, output=tmp_path / "reach.safetensors")
    step, steps = train_rl._BetweenEpisodes._on_step, []

    def stopping(callback):
        steps.append(1)
        if len(steps) == after:
            os.kill(os.getpid(), number)
        return step(callback)

    monkeypatch.setattr(train_rl._BetweenEpisodes, "_on_step", stopping)
    with pytest.raises(KeyboardInterrupt) as stop:
        train(config)
    assert isinstance(stop.value, Terminated) == (number == signal.SIGTERM)
    done = -(-after // 10) * 10
    assert len(steps) == done  # the episode was played to its end
    assert config.output.exists()
    train(config)
    assert f"continues after {done} steps" in capsys.readouterr().err
    assert len(steps) == STEPS  # nothing was done twice
    assert equal(config.output, whole.output)
    assert equal(config.training_file, whole.training_file)


def test_a_killed_training_loses_what_was_not_saved_and_nothing_else(whole, tmp_path, monkeypatch):
    config = replace(whole, output=tmp_path / "reach.safetensors")
    monkeypatch.setattr(train_rl, "SAVE_EVERY_S", 0.0)
    step, steps = train_rl._BetweenEpisodes._on_step, []

    def dying(callback):
        steps.append(1)
        if len(steps) == 117:
            raise MemoryError
        return step(callback)

    monkeypatch.setattr(train_rl._BetweenEpisodes, "_on_step", dying)
    with pytest.raises(MemoryError):
        train(config)
    train(config)
    assert len(steps) == 117 + STEPS - 110
    assert equal(config.output, whole.output)


def test_a_finished_training_goes_on_with_more_steps_only(whole, tmp_path, capsys):
    longer = tmp_path / "longer.safetensors"
    config = replace(whole, output=longer, steps=STEPS - 10)
    train(config)
    train(replace(config, steps=STEPS))
    assert learned(longer) == learned(whole.output)
    train(replace(config, steps=STEPS))  # nothing is left to do
    assert learned(longer) == learned(whole.output)
    with pytest.raises(ValueError, match=rf"is {STEPS} steps on already, more than the 20"):
        train(replace(config, steps=20))


def test_another_training_and_a_damaged_one_are_refused(whole, tmp_path):
    with pytest.raises(ValueError, match=r"was made with .*'seed': 0.*, not .*'seed': 1"):
        train(replace(whole, seed=1))
    copied = replace(whole, output=tmp_path / "reach.safetensors")
    content = whole.training_file.read_bytes()
    copied.training_file.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"reach\.training\.safetensors"):
        train(copied)
    assert copied.training_file.read_bytes() == content[:-1]
    copied.training_file.write_bytes(whole.output.read_bytes())
    with pytest.raises(ValueError, match="is no training; delete it to begin anew"):
        train(copied)


def test_episodes_are_never_those_of_tests(monkeypatch):
    seeds = []

    class Recorder(gym.Env):
        def reset(self, *, seed=None, options=None):
            seeds.append(seed)
            return 0, {}

    episodes = rl_episodes.SeededEpisodes(Recorder(), seed=3)
    for _ in range(300):
        episodes.reset()
    assert max(seeds) < rl_episodes.FIRST_EVALUATION_SEED < 1_000_000
    assert len(set(seeds)) > 295


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--output", "x.zip"], "`output` must end in .safetensors, got x.zip"),
        (["--output", "x.safetensors", "--steps", "0"], "`steps` must be at least 1, got 0"),
        (["--output", "x.safetensors", "--obj", "cub"], "cub"),
    ],
)
def test_a_wrong_argument_is_one_line(flags, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train-rl", *flags])
    assert main() == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_the_command_ends_as_all_do_after_sigterm(tmp_path):
    output = tmp_path / "reach.safetensors"
    command = [sys.executable, "-m", "jepa_gym.cli", "train-rl", "--output", str(output)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None
        text = ""
        deadline = time.monotonic() + 60
        while "20/20000" not in text and time.monotonic() < deadline:
            text += run.stderr.read(1)
        run.terminate()
        text += run.communicate(timeout=60)[1]
    finally:
        run.kill()
    assert run.returncode == 143
    assert "give the same command again to go on" in text and "Traceback" not in text
    assert output.exists()
    assert np.isfinite(load_file(output)["mu.bias"]).all()
