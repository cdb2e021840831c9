"""The speed benchmark of the suite: a tiny real run within generous bars, and what it counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jepa_gym.benchmarks import sim_measures
from jepa_gym.benchmarks.sim_speed import (
    PARTS,
    RESET_BAR_MS,
    SECOND_ENV_BAR_S,
    SpeedConfig,
)
from jepa_gym.envs.pictures.rendering import FrameRenderer

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
    assert set(figures) == {*PARTS, "machine", "config"}
    assert figures["machine"]["renderer"] in result.stdout

    [comparison] = figures["frames"]
    rows = comparison["rows"]
    assert len(rows) == 3 and comparison["image_size"] == 32
    for name, row in rows.items():
        assert row["ratio_to_stock"] > 4 or name == "stock robosuite", "no faster than robosuite"

    share = figures["share"]
    assert sum(share["share_ms"].values()) == pytest.approx(share["step_ms"])
    assert min([*share["share_ms"].values(), *share["floor_ms"].values()]) > 0

    assert list(figures["resets"]) == sim_measures.franka_ids()
    for reset in figures["resets"].values():
        assert reset["median_cpu_ms"] < 10 * RESET_BAR_MS and reset["growth_mib"] < 32

    rows = figures["vector"]["rows"]
    assert {"1, no process", "2, unsynchronised", "2"} <= set(rows)
    assert rows["1, no process"]["ratio"] == 1.0
    assert min(row["frames_per_s"] for row in rows.values()) > 0
    construction = figures["construction"]
    assert construction["second_s"] < 10 * SECOND_ENV_BAR_S, "what one process shares is made twice"


def test_ratios_to_stock_from_known_speeds(monkeypatch):
    def speed(frames: float):
        return lambda *_: {"frames_per_s": 1.0, "frames_per_cpu_s": frames}

    monkeypatch.setattr(sim_measures, "_stock", speed(2))
    monkeypatch.setattr(sim_measures, "_suite", speed(30))
    rows = sim_measures.frames(128, 5)["rows"]
    assert [row["ratio_to_stock"] for row in rows.values()] == [1, 15, 15]


def test_a_step_that_waits_shows_where(monkeypatch):
    """A part of a step that gets slower must show in that part, and in no other."""
    before = sim_measures.share(5)["share_ms"]
    render = FrameRenderer.render

    def slow(self, *args, **kwargs):
        time.sleep(0.05)
        return render(self, *args, **kwargs)

    monkeypatch.setattr(FrameRenderer, "render", slow)
    after = sim_measures.share(5)["share_ms"]
    grown = {part: after[part] - before[part] for part in after}
    assert grown["pictures"] > 40 and sum(grown.values()) - grown["pictures"] < 20


def test_help_names_the_parts():
    result = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "construction" in result.stdout and "--quick" in result.stdout


def test_quick_overrides_the_counts():
    config = SpeedConfig(quick=True)
    assert {name: getattr(config, name) for name in config.QUICK} == config.QUICK


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 0},
        {"resets": 0},
        {"rounds": 0},
        {"parts": ()},
        {"image_sizes": (128, 0)},
        {"vector_envs": (0,)},
        {"output": Path("figures.xyz")},
    ],
)
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
