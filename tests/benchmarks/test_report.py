from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.episodes import Cell, Film
from jepa_gym.benchmarks.results import write_json
from jepa_gym.benchmarks.video import write_video


def episode(agent: str, seed: int, final: float, **changes) -> dict:
    cell = asdict(Cell(agent, "reach", "box"))
    return cell | {
        "goal": "image",
        "seed": seed,
        "success_at_end": final <= 0.04,
        "success_once": True,
        "failure": None if final <= 0.04 else "not reached",
        "final_distance_m": final,
        "distances_m": [0.2, 0.1, final],
        "steps": 2,
        "evaluations": None,
        "seconds_per_action": 0.25,
        **changes,
    }


@pytest.fixture
def records() -> list[dict]:
    finals = (0.01, 0.02, 0.035, 0.1)
    return [
        *(episode("mpc-cem", seed, final) for seed, final in enumerate(finals)),
        episode("random", 0, 0.3, goal="-"),
        episode("mpc-cem", 0, 0.0, task="grasp", gripper_term=True, goal="image +gripper"),
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
    assert first["failures"] == {"not reached": 1} and rows[2]["failures"] == {}
    assert rows[2]["goal"] == "image +gripper"
    assert rows[2]["within_3cm_at_end"] is None


def test_table_names_goal_and_interval(records):
    text = report.table(report.rows(records))
    assert "image +gripper" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0].startswith("agent task object goal n"), "split and budget tell nothing here"
    expected = "mpc-cem reach box image 4 75% 30% to 95% 100% 50% 2.8 cm 0.250 1 not reached"
    assert lines[2] == expected


def test_table_shows_splits_and_budgets_where_there_are_any():
    both = [episode("mpc-cem", 0, 0.0), episode("mpc-cem", 0, 0.0, split="camera", budget="8x2")]
    both[1]["evaluations"] = 17.0
    header, _, plain, camera, *_ = report.table(report.rows(both)).splitlines()
    assert "split" in header and "budget" in header and "candidates" in header
    assert "plain" in plain and "camera" in camera and "8x2" in camera and " 17 " in camera


def test_planners_are_compared_on_common_seeds():
    records = [
        *(episode("mpc-cem", seed, final) for seed, final in enumerate((0.01, 0.1, 0.01, 0.01))),
        *(episode("mpc-icem", seed, 0.01) for seed in (1, 2, 9)),
        episode("mpc-icem", 0, 0.01, goal="image x4 by time", protocol="suite"),
        episode("scripted", 1, 0.01, goal="simulator state"),
    ]
    (found,) = report.comparisons(records)
    assert (found["agent"], found["reference"]) == (("mpc-icem", "default"), ("mpc-cem", "default"))
    assert found["pairs"] == 2 and found["difference"] == 0.5
    (line,) = report.comparison_lines([found])
    assert (
        line.startswith("mpc-icem against mpc-cem, reach box (image): +50%") and "2 common" in line
    )


def test_summary_is_json_with_settings(records, tmp_path):
    summary = report.summary(report.rows(records), {"torch": "2"}, {"seed": "0"})
    write_json(summary, tmp_path / "summary.json")
    loaded = json.loads((tmp_path / "summary.json").read_text())
    assert loaded["rows"][0]["success_at_end"] == 0.75 and loaded["settings"] == {"torch": "2"}


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
    film = Film(goals, goals, [plan] * 2 if planned else [], "title", [0.2, 0.1, 0.05])
    write_video(film, tmp_path / "film.mp4")
    frames = iio.imread(tmp_path / "film.mp4", plugin="pyav")
    assert frames.shape == (3 + 4, 320, 1440 if planned else 960, 3)
    assert (frames[0] != frames[2]).any()
