"""The speed benchmark: a tiny real run whose figures agree with each other, however slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_gym.benchmarks import sim_measures
from jepa_gym.benchmarks.sim_speed import PARTS, QUICK, SpeedConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sim_speed.py"
TINY = {"frames": 5, "resets": 3, "rounds": 1, "image-sizes": 32, "vector-envs": 2}


def test_tiny_run(tmp_path):
    output = tmp_path / "speed.json"
    flags = [f"--{name}={value}" for name, value in TINY.items()]
    result = subprocess.run(
        [sys.executable, SCRIPT, *flags, "--output", output],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    figures = json.loads(output.read_text())
    assert set(figures) == {*PARTS, "machine"}
    assert figures["machine"]["renderer"] in result.stdout

    [comparison] = figures["frames"]
    rows = comparison["rows"]
    base = rows["stock robosuite"]["frames_per_cpu_s"]
    assert len(rows) == 3 and comparison["image_size"] == 32
    for row in rows.values():
        assert row["ratio_to_stock"] == pytest.approx(row["frames_per_cpu_s"] / base)

    share = figures["share"]
    assert sum(share["share_ms"].values()) == pytest.approx(share["step_ms"])
    assert min([*share["share_ms"].values(), *share["floor_ms"].values()]) > 0

    assert list(figures["resets"]) == sim_measures.franka_ids()
    for reset in figures["resets"].values():
        assert 0 < reset["median_ms"] <= reset["p95_ms"]

    rows = figures["vector"]["rows"]
    assert {"1, no process", "2, unsynchronised", "2"} <= set(rows)
    assert rows["1, no process"]["ratio"] == 1.0
    assert min(row["frames_per_s"] for row in rows.values()) > 0
    assert figures["construction"].keys() == {"imports_s", "first_s", "second_s"}


def test_help_names_the_parts():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "construction" in result.stdout and "--quick" in result.stdout


def test_quick_overrides_the_counts():
    config = SpeedConfig(quick=True)
    assert {name: getattr(config, name) for name in QUICK} == QUICK


@pytest.mark.parametrize("fields", [{"frames": 0}, {"resets": 0}, {"rounds": 0}, {"parts": ()}])
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        SpeedConfig(**fields)


def test_timing_leaves_everything_as_it_was():
    """The parts of a step are timed by wrappers around library functions; the cores by affinity."""
    import mujoco

    before = mujoco.mj_step, os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    sim_measures.share(1)
    with sim_measures._two_cores() as cores:
        assert cores >= 1
    after = mujoco.mj_step, os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert before == after
