"""The main job: its rows and flags, a short real run, and what a missing checkpoint gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jepa_gym.benchmarks.reach_grasp import Arguments, cells, main, make_jobs
from jepa_gym.benchmarks.runner import HELD_OUT_SEEDS, Cell

REPOSITORY = Path(__file__).resolve().parents[2]


def test_rows_of_the_default_run():
    found = cells(Arguments())
    planner = [cell for cell in found if cell.agent == "mpc-cem"]
    assert planner == [
        Cell("mpc-cem", "reach", "box"),
        Cell("mpc-cem", "grasp", "box"),
        Cell("mpc-cem", "grasp", "box", "image+gripper"),
        Cell("mpc-cem", "grasp", "cup"),
        Cell("mpc-cem", "grasp", "cup", "image+gripper"),
    ]
    assert len(found) == 5 + 2 * 3


def test_seeds_are_held_out_paired_and_filmed_once():
    arguments = Arguments(episodes=3, seed=20)
    jobs = make_jobs(arguments, {})
    for cell in cells(arguments):
        own = [job for job in jobs if job.cell == cell]
        assert [job.seed for job in own] == [HELD_OUT_SEEDS + 20 + i for i in range(3)]
        assert [job.film for job in own] == [True, False, False]


def test_quick_runs_fewer_episodes_unless_told():
    assert Arguments(quick=True).episodes < Arguments().episodes
    assert Arguments(quick=True, episodes=7).episodes == 7


@pytest.mark.parametrize(
    "fields",
    [{"episodes": 0}, {"seed": -1}, {"workers": 0}, {"tasks": ()}, {"agents": ("mpc-cme",)}],
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        Arguments(**fields)


def test_missing_checkpoint_is_an_error_before_any_episode(tmp_path, capsys):
    output = tmp_path / "results"
    flags = ["--checkpoint", str(tmp_path / "nothing"), "--output", str(output)]
    assert main(flags) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not output.exists()


def test_real_run_writes_everything(tmp_path, capsys):
    flags = ["--agents", "random", "scripted", "--objects", "cup", "--episodes", "2", "--output"]
    assert main([*flags, str(tmp_path)]) == 0
    assert "scripted" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    rows = {(row["agent"], row["task"]): row for row in summary["rows"]}
    assert set(rows) == {(a, t) for a in ("random", "scripted") for t in ("reach", "grasp")}
    assert rows["scripted", "reach"]["success_at_end"] == 1.0
    assert rows["random", "reach"]["success_at_end"] == 0.0
    expected = {"agent", "task", "object", "goal", "episodes", "success_at_end", "success_once"}
    expected |= {"ci95", "median_final_distance_m", "seconds_per_action"}
    assert expected <= set(rows["random", "grasp"])
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert (tmp_path / "plot.png").exists()
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 4


def test_help_lists_the_flags():
    script = REPOSITORY / "benchmarks" / "reach_grasp.py"
    run = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for flag in ["agents", "tasks", "objects", "episodes", "seed", "checkpoint", "output", "quick"]:
        assert f"--{flag}" in run.stdout
