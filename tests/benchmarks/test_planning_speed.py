"""The planner's speed benchmark at toy size: results agree, and arithmetic is saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jepa_gym.benchmarks import plain_planner, planning_speed
from jepa_gym.benchmarks.planning_speed import PlanningSpeedConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "planning_speed.py"
TOY = ["--sides=2", "--width=64", "--depth=2", "--samples=3", "--iterations=2", "--rounds=1"]


def test_toy_run(tmp_path):
    output = tmp_path / "speed.json"
    result = subprocess.run(
        [sys.executable, SCRIPT, *TOY, "--envs=2", "--output", output],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert [row["case"] for row in figures["recompute"]] == list(planning_speed.CASES)
    for row in figures["recompute"]:
        assert row["tokens"] == 6 and row["difference"] <= planning_speed.AGREEMENT
        assert f"ratio {row['ratio']:.2f} (bar" in result.stdout
    assert figures["action"]["wall_s"] > 0 and figures["batch"]["envs"] == 2
    assert len(figures["arithmetic"]) == 3
    assert "DISAGREE" not in result.stdout


@pytest.mark.parametrize("case", planning_speed.CASES)
def test_ours_does_so_much_less_arithmetic(case, flops_of):
    """What the speed comes from, counted: it cannot be better on a quiet machine."""
    horizon, context, _ = planning_speed.CASES[case]
    model = planning_speed.published_shape(PlanningSpeedConfig(width=128, depth=3), 4)
    latents, states, goal = planning_speed.problem(model, context, 0)
    actions = torch.randn(1, 16, horizon, 7) / 10
    given = model, latents, states
    plain = flops_of(lambda: plain_planner.energies(*given, actions, goal))
    ours = flops_of(lambda: model.prepare(latents, states).energy(actions, goal))
    assert plain / ours > {"horizon 2, context 1": 1.5, "horizon 5, context 4": 6}[case]


def test_counted_products_are_what_the_engine_multiplies(flops_of):
    model = planning_speed.published_shape(PlanningSpeedConfig(width=128, depth=3), 4)
    latents, states, goal = planning_speed.problem(model, 2, 0)
    start, actions = model.prepare(latents, states), torch.randn(1, 16, 3, 7) / 10
    engine = flops_of(lambda: start.energy(actions, goal, 16))
    counted = sum(2 * b * m * k * n for b, m, k, n in planning_speed.products(model, 16, 3, 2))
    assert engine == pytest.approx(counted, rel=0.08)  # fused attention is not counted


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--quick" in result.stdout


@pytest.mark.parametrize("context", [1, 3])
def test_plain_planner_is_the_same_function(context):
    config = PlanningSpeedConfig(width=64, depth=2)
    model = planning_speed.published_shape(config, 2)
    latents, states, goal = planning_speed.problem(model, context, 0)
    actions = torch.randn(1, 4, 3, 7) / 10
    plain = plain_planner.energies(model, latents, states, actions, goal)
    ours = model.rollout_energy(latents, states, actions, goal)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    assert plain.std() > 1e-4  # actions matter


def test_counted_arithmetic():
    model = planning_speed.published_shape(PlanningSpeedConfig(width=64, depth=2), 2)
    shapes = planning_speed.products(model, 3, 1, 2)
    assert shapes == [
        (1, 18, 64, 64),  # the first block shares queries, keys and values, and attention
        (1, 18, 64, 256),
        (1, 18, 256, 64),
        (1, 18, 64, 192),
        (3, 4, 64, 12),
        (3, 4, 12, 64),
        (1, 12, 64, 64),  # the last block has the patches' outputs only
        (1, 12, 64, 256),
        (1, 12, 256, 64),
        (1, 12, 64, 88),
    ]
    planning_speed.multiplier(shapes)()


@pytest.mark.parametrize(
    "fields", [{"samples": 1}, {"rounds": 0}, {"width": 100}, {"parts": ()}, {"sides": (0,)}]
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}`"):
        PlanningSpeedConfig(**fields)
