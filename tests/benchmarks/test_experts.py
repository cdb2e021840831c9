"""The benchmark of experts and explorers."""

from __future__ import annotations

import json

from jepa_gym import TASKS
from jepa_gym.benchmarks.experts import Arguments, main
from jepa_gym.benchmarks.reach_grasp import cells, make_jobs
from jepa_gym.envs.physics.objects import OBJECTS


def test_every_task_with_every_object_by_default():
    arguments = Arguments()
    found = [(cell.agent, cell.task, cell.object, cell.split) for cell in cells(arguments)]
    assert found == [("scripted", task, obj, "plain") for task in TASKS for obj in OBJECTS]
    jobs = make_jobs(arguments)
    assert len(jobs) == 200 * len(found) and not any(job.film for job in jobs)


def test_runs_writes_and_counts(tmp_path):
    flags = ["--tasks", "reach", "grasp", "--objects", "box", "milk", "--episodes", "3"]
    assert main([*flags, "--workers", "1", "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    expected = [("reach", "box"), ("reach", "milk"), ("grasp", "box"), ("grasp", "milk")]
    assert [(row["task"], row["object"]) for row in rows] == expected
    assert all(row["episodes"] == 3 and row["success_at_end"] == 1 for row in rows)


def test_random_agents_fail_and_are_counted(tmp_path, capsys):
    flags = ["--agents", "random", "--tasks", "pick-place", "--objects", "box", "--episodes", "2"]
    assert main([*flags, "--workers", "1", "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert row["success_at_end"] == 0 and sum(row["failures"].values()) == 2
    assert "2 not grasped" in capsys.readouterr().out
