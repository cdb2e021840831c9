"""The curve of success against evaluations."""

from __future__ import annotations

import json

import pytest

from jepa_gym.benchmarks import planner_curve
from jepa_gym.benchmarks.planner_curve import PUBLISHED, Arguments, jobs, main, rows, savings


def test_runs_and_writes(tmp_path, monkeypatch):
    flags = ["--planners", "random", "--tasks", "reach", "--episodes", "1", "--workers", "1"]
    monkeypatch.setitem(planner_curve.BUDGETS, "random", ({"samples": 4, "iterations": 2},))
    assert main([*flags, "--published-episodes", "0", "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert row["planner"] == "random" and row["budget"] == "4x2" and row["episodes"] == 1
    assert 8 <= row["evaluations"] <= 9
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_every_point_meets_the_same_episodes():
    found = jobs(Arguments(planners=("cem", "mppi"), tasks=("reach",), episodes=3))
    points: dict = {}
    for job in found:
        points.setdefault((job.planner, job.name), []).append(job.seed)
    assert {len(seeds) for seeds in points.values()} == {3, 20}
    assert all(seeds[:3] == [1_000_000 + i for i in range(3)] for seeds in points.values())
    assert found[0].name == PUBLISHED, "the slowest go first"


def test_rows_aggregate_a_point():
    episode = {"task": "reach", "planner": "cem", "budget": "8x2", "seconds_per_action": 0.1}
    won = episode | {"success_at_end": True, "distance_m": 0.01, "evaluations": 17.0}
    lost = episode | {"success_at_end": False, "distance_m": 0.2, "evaluations": 17.0}
    (row,) = rows([won, lost, won])
    assert row["success_at_end"] == pytest.approx(2 / 3) and row["evaluations"] == 17
    assert row["median_distance_m"] == 0.01


def test_savings_take_the_least_that_is_as_good_as_the_published_budget():
    def point(task: str, planner: str, budget: str, evaluations: float, success: float) -> dict:
        row = {"task": task, "planner": planner, "budget": budget}
        return row | {"evaluations": evaluations, "success_at_end": success}

    lines = [
        point("grasp", "cem", "8x2", 17, 0.9),
        point("reach", "cem", "8x2", 20, 0.5),
        point("reach", "cem", "16x4", 80, 0.9),
        point("reach", "cem", "32x6", 160, 1.0),
        point("reach", "cem", PUBLISHED, 8000, 0.9),
        point("reach", "random", "32x6", 160, 0.8),
    ]
    assert savings(lines) == {"reach": {"cem": {"evaluations": 80, "times_fewer": 100}}}


def test_bad_arguments_name_what_is_allowed():
    with pytest.raises(ValueError, match="'cem', 'icem'"):
        Arguments(planners=("cme",))
    with pytest.raises(ValueError, match="episodes"):
        Arguments(episodes=0)
