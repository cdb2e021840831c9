"""The curve of success against evaluations."""

from __future__ import annotations

import json

import pytest

from jepa_gym.benchmarks import planner_curve
from jepa_gym.benchmarks.planner_curve import PAPER, Arguments, jobs_of, main, points, savings


def test_runs_and_writes(tmp_path, monkeypatch):
    flags = ["--planners", "random", "--tasks", "reach", "--episodes", "1", "--workers", "1"]
    monkeypatch.setitem(planner_curve.BUDGETS, "random", ({"samples": 4, "iterations": 2},))
    assert main([*flags, "--paper-episodes", "0", "--output", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    (row,) = summary["rows"]
    assert row["agent"] == "mpc-random" and row["budget"] == "4x2" and row["episodes"] == 1
    assert 8 <= row["evaluations"] <= 9
    assert summary["savings"] == []
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_another_budget_of_the_same_name_is_refused(tmp_path, monkeypatch, capsys):
    flags = ["--planners", "random", "--tasks", "reach", "--episodes", "1", "--workers", "1"]
    flags += ["--paper-episodes", "0", "--output", str(tmp_path)]
    budget = {"samples": 4, "iterations": 1}
    monkeypatch.setitem(planner_curve.BUDGETS, "random", (budget,))
    assert main(flags) == 0
    monkeypatch.setitem(planner_curve.BUDGETS, "random", (budget | {"horizon": 2},))
    assert main(flags) == 1
    assert "`budget mpc-random 4x1` was" in capsys.readouterr().err


def test_every_point_meets_the_same_episodes():
    found = jobs_of(Arguments(planners=("cem", "mppi"), tasks=("reach",), episodes=3))
    by_point: dict = {}
    for job in found:
        by_point.setdefault((job.cell.agent, job.cell.budget), []).append(job.seed)
    assert {len(seeds) for seeds in by_point.values()} == {3, 20}
    assert all(seeds[:3] == [1_000_000 + i for i in range(3)] for seeds in by_point.values())
    assert found[0].cell.budget == PAPER, "the slowest go first"


def episodes(planner: str, budget: str, evaluations: float, successes: str) -> list[dict]:
    """Make episodes of one point; `successes` has a 1 or 0 for each seed."""
    cell = {"agent": f"mpc-{planner}", "task": "reach", "object": "box", "split": "plain"}
    cell |= {"protocol": "suite", "schedule": "time", "gripper_term": False, "budget": budget}
    cell |= {"start": "plain"}
    common = {"goal": "image", "success_once": True, "failure": None, "final_distance_m": 0.1}
    common |= {"evaluations": evaluations, "seconds_per_action": 0.1}
    return [
        cell | common | {"seed": seed, "success_at_end": success == "1"}
        for seed, success in enumerate(successes)
    ]


def test_points_compare_with_the_paper_budget_on_common_seeds():
    records = episodes("cem", PAPER, 8000, "1110") + episodes("cem", "8x2", 17, "100110")
    small, paper = points(records)
    assert paper["against_paper"] is None and paper["success_at_end"] == 0.75
    assert small["episodes"] == 6 and small["evaluations"] == 17
    compared = small["against_paper"]
    assert compared["pairs"] == 4 and compared["difference"] == pytest.approx(0.5 - 0.75)
    low, high = compared["ci95"]
    assert low < compared["difference"] < high


def test_savings_are_told_only_where_the_difference_is_within_noise():
    records = [
        *episodes("cem", PAPER, 8000, "1" * 38 + "00"),
        *episodes("cem", "8x2", 20, "1" * 20 + "0" * 20),  # far worse
        *episodes("cem", "16x4", 80, "1" * 36 + "0011"),  # worse, within noise
        *episodes("cem", "32x6", 160, "1" * 40),
        *episodes("random", "32x6", 160, "1" * 28 + "0" * 12),  # worse, and surely so
    ]
    (saved,) = savings(points(records))
    assert (saved["agent"], saved["budget"], saved["times_fewer"]) == ("mpc-cem", "16x4", 100)
    line = planner_curve.saving_line(saved)
    assert "100 times fewer" in line and "40 common seeds" in line
