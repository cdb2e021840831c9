"""The benchmark of Stable-Baselines3 on imagined environments writes what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sb3_speed.py"


def test_toy_run(tmp_path):
    output = tmp_path / "speed.json"
    result = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "--envs=4", "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    rows = figures["rows"]
    assert figures["ratio"] == pytest.approx(rows["single"]["wall_s"] / rows["batched"]["wall_s"])
    for name, row in rows.items():
        assert f"{name}: {row['steps_per_s']:.0f} steps/s" in result.stdout
    assert f"{figures['ratio']:.2f}" in result.stdout
