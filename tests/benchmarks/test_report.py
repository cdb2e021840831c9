from __future__ import annotations

import json

import numpy as np
import pytest

from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.runner import Cell, Film
from jepa_gym.benchmarks.video import write_video


def episode(agent: str, seed: int, final: float, task: str = "reach", goal: str = "image") -> dict:
    return {
        "agent": agent,
        "task": task,
        "object": "box",
        "goal": goal,
        "seed": seed,
        "success_at_end": final <= 0.04,
        "success_once": True,
        "final_distance_m": final,
        "distances_m": [0.2, 0.1, final],
        "steps": 2,
        "seconds_per_action": 0.25,
    }


@pytest.fixture
def records() -> list[dict]:
    finals = (0.01, 0.02, 0.035, 0.1)
    return [
        *(episode("mpc-cem", seed, final) for seed, final in enumerate(finals)),
        episode("random", 0, 0.3),
        episode("mpc-cem", 0, 0.0, task="grasp", goal="image+gripper"),
    ]


def test_rows_aggregate_each_cell(records):
    rows = report.rows(records)
    assert [(row["agent"], row["task"]) for row in rows] == [
        ("mpc-cem", "reach"),
        ("random", "reach"),
        ("mpc-cem", "grasp"),
    ]
    first = rows[0]
    assert (first["episodes"], first["success_at_end"], first["success_once"]) == (4, 0.75, 1.0)
    assert first["within_3cm_at_end"] == 0.5
    assert first["median_final_distance_m"] == pytest.approx(0.0275)
    assert first["seconds_per_action"] == 0.25
    assert 0 < first["ci95"][0] < 0.75 < first["ci95"][1] < 1
    assert rows[2]["goal"] == "image+gripper"
    assert rows[2]["within_3cm_at_end"] is None


def test_table_names_goal_and_interval(records):
    text = report.table(report.rows(records))
    assert "image+gripper" in text
    line = next(line for line in text.splitlines() if line.startswith("mpc-cem"))
    expected = "mpc-cem reach box image 4 75% 30% to 95% 100% 50% 2.8 cm 0.250"
    assert " ".join(line.split()) == expected


def test_summary_is_json_with_versions_and_hashes(records, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    summary = report.summary(report.rows(records), {"seed": 0}, tmp_path)
    report.write_json(summary, tmp_path / "summary.json")
    loaded = json.loads((tmp_path / "summary.json").read_text())
    assert loaded["rows"][0]["success_at_end"] == 0.75
    assert {"jepa-gym", "python", "torch", "mujoco", "robosuite"} <= set(loaded["versions"])
    assert len(loaded["checkpoint"]["model.safetensors"]) == 64
    assert report.summary([], {}, None)["checkpoint"] is None


def test_plot_is_written(records, tmp_path):
    report.write_plot(report.rows(records), records, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize("planned", [True, False])
def test_video_has_a_frame_a_step_and_a_pause(planned, tmp_path):
    import imageio.v3 as iio

    from jepa_gym.agents.mpc import PlanRecord

    rng = np.random.default_rng(0)
    goals = rng.integers(0, 255, (3, 16, 32, 3), dtype=np.uint8)
    energies = np.array([[0.5, np.inf, 0.7]], np.float32)
    one = np.ones(1, np.float32)
    plan = PlanRecord(
        np.zeros((1, 3, 1, 7)), energies, np.zeros((1, 7)), 0.5 * one, 0.6 * one, 0.7 * one
    )
    result = {"distances_m": [0.2, 0.1, 0.05]}
    film = Film(goals, goals, [plan] * 2 if planned else [], Cell("a", "reach", "box"), result)
    write_video(film, tmp_path / "film.mp4")
    frames = iio.imread(tmp_path / "film.mp4", plugin="pyav")
    assert frames.shape == (3 + 4, 320, 1440 if planned else 960, 3)
    assert (frames[0] != frames[2]).any()
