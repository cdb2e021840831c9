"""The benchmark of imagined steps: what it counts, and that it writes what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from jepa_gym import WorldModel
from jepa_gym.benchmarks import imagination_speed
from jepa_gym.benchmarks.imagination_speed import ImaginationSpeedConfig
from jepa_gym.envs.vector import FrankaVectorEnv
from jepa_gym.latent.env import JEPALatentEnv
from jepa_gym.latent.vector_env import JEPALatentVectorEnv

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "imagination_speed.py"


def test_toy_run(tmp_path):
    output = tmp_path / "speed.json"
    toy = ["--envs=8", "--steps=3", "--real-steps=2", "--rounds=2", "--output", str(output)]
    result = subprocess.run(
        [sys.executable, SCRIPT, *toy], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert "vector over real" in result.stdout
    # how fast a busy machine is proves nothing: only that each figure was measured and is printed
    for name in ("vector_ratio", "candidates_ratio"):
        assert figures[name] > 0
        assert f"{figures[name]:.1f}" in result.stdout


@pytest.fixture(scope="module")
def model():
    return WorldModel.from_pretrained("default")


CONFIG = ImaginationSpeedConfig(envs=3, steps=2, real_steps=4, cores=1, rounds=1)


@pytest.mark.parametrize(
    ("stepper", "env_class", "a_call"),
    [
        (imagination_speed.vector_stepper, JEPALatentVectorEnv, 3),
        (imagination_speed.single_stepper, JEPALatentEnv, 1),
        (imagination_speed.real_stepper, FrankaVectorEnv, 1),
    ],
)
def test_as_many_steps_are_counted_as_are_made(stepper, env_class, a_call, model, monkeypatch):
    calls, step = [], env_class.step
    monkeypatch.setattr(env_class, "step", lambda self, a: calls.append(1) or step(self, a))
    count, seconds = stepper(CONFIG, model)()
    assert count == a_call * len(calls) and seconds > 0


def test_as_many_candidates_are_counted_as_are_imagined(model, flops_of):
    """The counted steps cost what a candidate costs, so none was left out or done for nothing."""
    config = replace(CONFIG, envs=4)
    one, three = (
        imagination_speed.candidate_stepper(replace(config, steps=steps), model) for steps in (1, 3)
    )
    assert (one()[0], three()[0]) == (4, 12)
    assert flops_of(three) == 3 * flops_of(one) > 0


def test_ratios_from_known_speeds(monkeypatch):
    """By hand: vector 80 steps in 2 s, single 80 in 8 s, candidates 90 in 1 s, real 10 in 1 s."""
    for name, told in {"vector": (80, 2.0), "single": (80, 8.0), "candidate": (90, 1.0),
                       "real": (10, 1.0)}.items():  # fmt: skip
        monkeypatch.setattr(
            imagination_speed, f"{name}_stepper", lambda *_, told=told: lambda: told
        )
    figures = imagination_speed.run(CONFIG)
    assert [figures[f"{name}_ratio"] for name in ("vector", "real", "candidates")] == [4, 4, 9]


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--quick" in result.stdout


@pytest.mark.parametrize("fields", [{"envs": 0}, {"steps": 11}, {"rounds": 0}, {"cores": 0}])
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        ImaginationSpeedConfig(**fields)
