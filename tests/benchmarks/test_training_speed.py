"""The training's speed benchmark at toy size: both sides learn alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jepa_gym.benchmarks import training_speed
from jepa_gym.benchmarks.training_speed import CASES, PARTS, Steps, TrainingSpeedConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "training_speed.py"
TOY = TrainingSpeedConfig(size=64, width=64, depth=1, batch_size=2)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_toy_run(tmp_path):
    output = tmp_path / "speed.json"
    toy = ["--size=64", "--width=64", "--depth=1", "--batch-size=2", "--rounds=1"]
    result = subprocess.run(
        [sys.executable, SCRIPT, *toy, "--output", output],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(output.read_text())["measurements"]
    assert [(row["part"], row["precision"]) for row in rows] == [
        (part, precision) for part in PARTS for precision in ("float32", "bfloat16")
    ]
    for row in rows:
        assert f"ratio {row['ratio']:.2f} (bar" in result.stdout
        assert row["difference"] < (1e-3 if row["precision"] == "float32" else 1e-1)
        assert 0 <= row["waiting"] < 1 and 0 < row["share"] < 2


@pytest.mark.parametrize("part", PARTS)
def test_ours_learns_what_the_plain_one_learns(part, tmp_path):
    arrays = training_speed.episodes(TOY, tmp_path)
    steps = Steps(TOY, CASES[part](TOY, arrays), "float32")
    taken, bar = (5, 1e-3) if part == "posttrain" else (50, 1e-5)  # its latents are in float16
    for _ in range(taken):
        steps.plain()
        steps.ours()
    steps.trainer.batches.close()
    plain, ours = steps.losses.values()
    assert len(plain) == len(ours) == taken and steps.difference < bar
    assert len(set(plain)) == taken


@pytest.mark.parametrize("part", PARTS)
def test_ours_does_no_more_arithmetic(part, tmp_path):
    arrays = training_speed.episodes(TOY, tmp_path)
    steps = Steps(TOY, CASES[part](TOY, arrays), "float32")
    plain, ours = map(training_speed.operations_of, (steps.plain, steps.ours))
    steps.trainer.batches.close()
    assert ours <= plain


@pytest.mark.parametrize(
    "fields", [{"rounds": 0}, {"width": 100}, {"size": 20}, {"parts": ()}, {"precisions": ()}]
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}`"):
        TrainingSpeedConfig(**fields)
