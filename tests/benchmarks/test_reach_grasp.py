"""The main job: its rows and flags, a short real run, and what a missing checkpoint gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from stable_baselines3 import SAC

from jepa_gym import TASKS
from jepa_gym.agents.policy import write_policy
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, Cell, Job, make_cell_agent, run_episode
from jepa_gym.benchmarks.reach_grasp import ALL_AGENTS, Arguments, cells, main, make_jobs
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.splits import SPLITS, split_objects
from jepa_gym.envs.tasks.reach import FrankaReachEnv

REPOSITORY = Path(__file__).resolve().parents[2]


def rows_of(agent: str, **fields) -> list[tuple]:
    found = [cell for cell in cells(Arguments(**fields)) if cell.agent == agent]
    return [(c.task, c.object, c.protocol) for c in found]


def test_rows_of_the_default_run():
    assert rows_of("mpc-cem") == [
        ("reach", "box", "published"),
        ("grasp", "box", "published"),
        ("grasp", "box", "suite"),
        ("grasp", "cup", "published"),
        ("grasp", "cup", "suite"),
    ]
    for agent in ("random", "scripted"):
        assert rows_of(agent) == [(t, o, "published") for t, o, p in rows_of("mpc-cem")
                                  if p == "published"]  # fmt: skip
    assert not any(cell.gripper_term for cell in cells(Arguments()))


def test_protocols_that_show_the_same_run_once():
    tasks = ("reach", "grasp", "reach-with-object", "pick-place")
    fields = {"tasks": tasks, "objects": ("can",), "agents": ("mpc-icem", "scripted")}
    assert rows_of("mpc-icem", protocols=("published", "suite", "one"), **fields) == [
        ("reach", "can", "published"),
        ("grasp", "can", "published"),
        ("grasp", "can", "suite"),
        ("reach-with-object", "can", "published"),
        ("pick-place", "can", "published"),
        ("pick-place", "can", "one"),
    ]
    assert rows_of("mpc-icem", protocols=("suite",), **fields)[3] == ("pick-place", "can", "suite")
    assert len(rows_of("scripted", protocols=("one", "suite"), **fields)) == 4


def test_all_has_every_task_object_split_and_protocol():
    found = cells(Arguments(agents=("mpc-cem",), all=True))
    assert {cell.task for cell in found} == set(TASKS)
    assert {cell.object for cell in found} == set(OBJECTS)
    assert {cell.split for cell in found} == {"plain", *SPLITS}
    assert {cell.protocol for cell in found} == {"published", "suite", "one"}
    assert all(c.split == "plain" or c.object in split_objects(c.split) for c in found)
    chosen = cells(Arguments(agents=("mpc-cem",), all=True, tasks=("reach",), splits=("object",)))
    assert {(c.task, c.object) for c in chosen} == {("reach", o) for o in split_objects("object")}


def test_all_has_hard_starts_of_the_tasks_that_know_them_and_the_references():
    found = cells(Arguments(all=True, objects=("box",), splits=("plain",)))
    far = {cell.task for cell in found if cell.start == "far"}
    assert far == {"reach", "grasp", "reach-with-object"}
    assert {cell.agent for cell in found} == set(ALL_AGENTS)
    assert {cell.start for cell in cells(Arguments())} == {"plain"}


def test_splits_run_with_the_objects_that_belong_to_them():
    found = cells(Arguments(tasks=("grasp",), agents=("random",), splits=("plain", "object")))
    objects = [(cell.split, cell.object) for cell in found]
    held_out = [("object", name) for name in split_objects("object")]
    assert objects == [("plain", "box"), ("plain", "cup"), *held_out]
    with pytest.raises(ValueError, match="The split object has the objects"):
        cells(Arguments(splits=("object",), objects=("box",)))


def test_gripper_term_and_presets_are_rows_of_planners_only():
    fields = {"tasks": ("reach",), "agents": ("random", "mpc-cem", "mpc-mppi")}
    found = cells(Arguments(gripper_term=True, presets=("default", "published"), **fields))
    assert [(c.agent, c.budget, c.gripper_term) for c in found] == [
        ("random", "default", False),
        ("mpc-cem", "default", False),
        ("mpc-cem", "default", True),
        ("mpc-cem", "published", False),
        ("mpc-cem", "published", True),
        ("mpc-mppi", "default", False),
        ("mpc-mppi", "default", True),
    ]


def test_seeds_are_held_out_paired_and_filmed_once():
    arguments = Arguments(episodes=3, seed=20)
    jobs = make_jobs(arguments)
    for cell in cells(arguments):
        own = [job for job in jobs if job.cell == cell]
        assert [job.seed for job in own] == [HELD_OUT_SEEDS + 20 + i for i in range(3)]
        assert [job.film is not None for job in own] == [True, False, False]
    assert len({job.film for job in jobs}) == 1 + len(cells(arguments))


def test_quick_runs_fewer_episodes_unless_told():
    assert Arguments(quick=True).episodes < Arguments().episodes
    assert Arguments(quick=True, episodes=7).episodes == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"episodes": 0},
        {"seed": -1},
        {"workers": 0},
        {"tasks": ()},
        {"tasks": ("reech",)},
        {"agents": ("mpc-cme",)},
        {"objects": ("cupp",)},
        {"splits": ("cam",)},
        {"protocols": ("publish",)},
    ],
)
def test_refuses_bad_arguments(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must"):
        Arguments(**fields)


@pytest.fixture
def policy(tmp_path):
    """An untrained policy of our own on states and goals."""
    bounds = FrankaReachEnv(obs_mode="state").action_space
    sizes = {
        "observation": {"achieved_goal": 3, "desired_goal": 3, "observation": 7},
        "action_low": bounds.low.tolist(),
        "action_high": bounds.high.tolist(),
    }
    widths = {"latent_pi.0": (8, 13), "mu": (7, 8), "log_std": (7, 8)}
    actor = {f"{name}.weight": torch.randn(size) for name, size in widths.items()}
    actor |= {f"{name}.bias": torch.zeros(size[0]) for name, size in widths.items()}
    write_policy(tmp_path / "policy.safetensors", actor, sizes)
    return tmp_path / "policy.safetensors"


def test_anyones_policy_runs_and_is_told_apart_by_its_digest(policy, tmp_path, capsys):
    output = tmp_path / "results"
    flags = ["--agents", "policy", "--policy", str(policy), "--tasks", "reach", "--episodes", "1"]
    flags += ["--objects", "can", "--splits", "train", "--no-videos", "--output", str(output)]
    assert main(flags) == 0
    (row,) = json.loads((output / "summary.json").read_text())["rows"]
    assert (row["object"], row["split"], row["goal"]) == ("can", "train", "goal position")
    other = SAC("MultiInputPolicy", FrankaReachEnv(obs_mode="state"), buffer_size=1)
    other.save(tmp_path / "strange.zip")
    flags[3] = str(tmp_path / "strange.zip")
    assert main(flags) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    with pytest.warns(RuntimeWarning, match="runs the code in it"):
        assert main([*flags, "--allow-pickle"]) == 1
    assert "`policy of policy` was" in capsys.readouterr().err
    with pytest.warns(RuntimeWarning, match="runs the code in it"):
        assert main([*flags, "--allow-pickle", "--overwrite"]) == 0
    assert json.loads((output / "summary.json").read_text())["rows"][0]["episodes"] == 1


def test_the_published_preset_is_the_published_agent():
    env = FrankaReachEnv()
    cell = Cell("mpc-cem", "reach", "box", budget="published")
    agent = make_cell_agent(env, Job(cell, 0, "default"))
    assert agent.min_improvement is None and agent.gripper == "published"
    assert (agent.planner.config.samples, agent.planner.config.as_published) == (800, True)
    paper = make_cell_agent(env, Job(replace(cell, budget="paper"), 0, "default"))
    assert paper.planner.config.samples == 800 and paper.min_improvement == 0.01


def test_a_policy_needs_its_file():
    with pytest.raises(ValueError, match="needs `--policy`"):
        Arguments(agents=("sac",))


def test_missing_checkpoint_is_an_error_before_any_episode(tmp_path, capsys):
    output = tmp_path / "results"
    flags = ["--checkpoint", str(tmp_path / "nothing"), "--output", str(output)]
    assert main(flags) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err
    assert not output.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("results")
    flags = ["--agents", "random", "scripted", "--objects", "cup", "--episodes", "2", "--output"]
    assert main([*flags, str(folder)]) == 0
    return folder


def test_real_run_writes_everything(finished):
    summary = json.loads((finished / "summary.json").read_text())
    rows = {(row["agent"], row["task"]): row for row in summary["rows"]}
    assert set(rows) == {(a, t) for a in ("random", "scripted") for t in ("reach", "grasp")}
    assert rows["scripted", "reach"]["success_at_end"] == 1.0
    assert rows["random", "reach"]["success_at_end"] == 0.0
    assert {rows["random", t]["goal"] for t in ("reach", "grasp")} == {"-"}
    assert {rows["scripted", t]["goal"] for t in ("reach", "grasp")} == {"simulator state"}
    assert rows["random", "grasp"]["failures"] == {"not grasped": 2}
    assert {"code", "checkpoint", "torch", "environment"} <= set(summary["settings"])
    assert len((finished / "episodes.jsonl").read_text().splitlines()) == 8
    assert (finished / "plot.png").exists()
    assert len(list((finished / "videos").glob("*.mp4"))) == 4
    assert not (finished / "failures.png").exists()  # of agents that look at no picture


def test_failures_are_photographed_and_drawn(tmp_path):
    flags = ["--agents", "imagined-policy", "hold-still", "--tasks", "grasp", "--objects", "cup"]
    flags += ["--protocols", "one", "--starts", "far", "--episodes", "2", "--seed", "500"]
    assert main([*flags, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert {row["start"] for row in rows} == {"far"}
    assert [row["success_at_end"] for row in rows] == [0, 0]  # it never closes the gripper
    shots = sorted(path.name for path in (tmp_path / "failures").iterdir())
    assert [name.split("_")[0] for name in shots] == ["imagined-policy"] * 2
    assert iio.imread(tmp_path / "failures" / shots[0]).shape == (128, 3 * 256 + 8, 3)
    assert iio.imread(tmp_path / "failures.png").shape[0] > 128


@pytest.mark.parametrize(
    "flags",
    [
        ["--agents", "policy", "--policy", "missing.safetensors"],
        ["--checkpoint", "missing"],
        ["--agents", "randm"],
        ["--splits", "object", "--objects", "cup"],
    ],
)
def test_a_mistake_leaves_a_finished_run_as_it_was(flags, finished, tmp_path, capsys):
    """A wrong policy path once wiped a finished summary."""
    folder = tmp_path / "results"
    shutil.copytree(finished, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main([*flags, "--output", str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert len(list((folder / "videos").glob("*.mp4"))) == 4


def test_more_rows_join_those_in_the_folder(finished, tmp_path, capsys):
    folder = tmp_path / "results"
    shutil.copytree(finished, folder)
    flags = ["--tasks", "reach", "--objects", "cup", "--episodes", "3", "--no-videos"]
    assert main([*flags, "--agents", "scripted", "smooth-noise", "--output", str(folder)]) == 0
    printed = capsys.readouterr().err
    assert "2 of 6 episodes were finished before" in printed
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    counts = {(row["agent"], row["task"]): row["episodes"] for row in rows}
    assert counts == {
        ("scripted", "reach"): 3,
        ("smooth-noise", "reach"): 3,
        ("random", "reach"): 2,
        ("random", "grasp"): 2,
        ("scripted", "grasp"): 2,
    }


def test_any_environment_runs(tmp_path):
    flags = ["--tasks", "JEPALatent-v0", "--agents", "random", "--episodes", "1"]
    assert main([*flags, "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert (row["task"], row["object"], row["episodes"]) == ("JEPALatent-v0", "-", 1)


def test_agents_without_pictures_act_alike_with_and_without_them(tmp_path):
    cell = Cell("random", "grasp", "box", "appearance")
    outcomes = [
        run_episode(Job(cell, 5, "default", film=film)) for film in (None, tmp_path / "x.mp4")
    ]
    for outcome in outcomes:
        del outcome["seconds_per_action"]
    assert outcomes[0] == outcomes[1]


def test_help_lists_the_flags():
    script = REPOSITORY / "benchmarks" / "reach_grasp.py"
    run = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for flag in ["agents", "tasks", "objects", "splits", "protocols", "policy", "overwrite"]:
        assert f"--{flag}" in run.stdout
