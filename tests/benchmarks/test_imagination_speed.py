"""The benchmark of imagined steps at toy size: it runs, and its ratios follow from its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_gym.benchmarks.imagination_speed import ImaginationSpeedConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "imagination_speed.py"


def test_toy_run(tmp_path):
    output = tmp_path / "speed.json"
    toy = ["--envs=2", "--steps=2", "--real-steps=2", "--rounds=1", "--output", str(output)]
    result = subprocess.run(
        [sys.executable, SCRIPT, *toy], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    speeds = {(row["what"], row["cores"]): row["steps_per_s"] for row in figures["rows"]}
    for what, cores, other, key in (
        ("vector", 1, "single, in turn", "vector_ratio"),
        ("vector", 2, "real, pixels", "real_ratio"),
        ("candidates", 2, "real, pixels", "candidates_ratio"),
    ):
        expected = speeds[what, cores] / speeds[other, cores]
        assert figures[key] == pytest.approx(expected)
    assert all(x > 0 for x in speeds.values())
    assert "vector over real" in result.stdout


def test_help():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0 and "--quick" in result.stdout


@pytest.mark.parametrize("fields", [{"envs": 0}, {"steps": 11}, {"rounds": 0}, {"cores": 0}])
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        ImaginationSpeedConfig(**fields)
