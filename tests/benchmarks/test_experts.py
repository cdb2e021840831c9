"""The benchmark of experts and explorers."""

from __future__ import annotations

import json

import pytest

from jepa_gym.benchmarks.experts import Arguments, main, rows


def test_runs_writes_and_counts(tmp_path, capsys):
    flags = ["--tasks", "reach", "grasp", "--objects", "box", "milk", "--episodes", "3"]
    assert main([*flags, "--workers", "1", "--output", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["task"], row["object"]) for row in summary["rows"]] == [
        ("reach", "box"),
        ("reach", "milk"),
        ("grasp", "box"),
        ("grasp", "milk"),
    ]
    assert all(row["episodes"] == 3 and row["success_at_end"] == 1 for row in summary["rows"])
    assert "milk*" in capsys.readouterr().out
    first = json.loads((tmp_path / "episodes.jsonl").read_text().splitlines()[0])
    assert [episode["seed"] for episode in first["episodes"]] == [1_000_000 + i for i in range(3)]


def test_random_agents_fail_and_are_counted(tmp_path):
    flags = ["--agent", "random", "--tasks", "pick-place", "--objects", "box", "--episodes", "2"]
    assert main([*flags, "--workers", "1", "--output", str(tmp_path)]) == 0
    row = json.loads((tmp_path / "summary.json").read_text())["rows"][0]
    assert row["success_at_end"] == 0 and sum(row["failures"].values()) == 2


def test_rows_join_chunks():
    won = {"success_at_end": True, "success_once": True, "failure": None}
    lost = {"success_at_end": False, "success_once": True, "failure": "dropped"}
    chunk = {"task": "grasp", "object": "cup"}
    row = rows([chunk | {"episodes": [won, won]}, chunk | {"episodes": [won, lost]}])[0]
    assert row["episodes"] == 4 and row["success_at_end"] == 0.75 and row["success_once"] == 1
    assert row["failures"] == {"dropped": 1}


def test_bad_arguments_name_what_is_allowed():
    with pytest.raises(ValueError, match="'reach', 'grasp'"):
        Arguments(tasks=("push",))
    with pytest.raises(ValueError, match="'milk', 'lemon', 'mug'"):
        Arguments(split="object", objects=("box",))
    with pytest.raises(ValueError, match="episodes"):
        Arguments(episodes=0)
