"""The comparison at a size that tests can afford: both worlds, tests, pictures, one HTML page."""

from __future__ import annotations

import json

import pytest

from jepa_gym.benchmarks.compare import Arguments, jobs_of, main, over_tasks, paired_tests

FLAGS = ["--agents", "hold-still", "scripted", "imagined-policy", "mpc-cem", "--tasks", "reach",
         "--episodes", "2", "--seed", "4000"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    assert main([*FLAGS, "--output", str(folder)]) == 0
    return folder


def test_writes_table_pictures_and_page(finished):
    summary = json.loads((finished / "summary.json").read_text())
    rows = {(row["world"], row["agent"]): row for row in summary["rows"]}
    assert rows["real", "scripted"]["success_at_end"] == 1.0
    assert ("imagined", "scripted") not in rows  # it reads the simulator's state
    assert rows["imagined", "hold-still"]["success_at_end"] == 0.0
    assert rows["imagined", "mpc-cem"]["episodes"] == 2
    assert rows["real", "mpc-cem"]["train_minutes"] > 0
    assert rows["real", "mpc-cem"]["recorded_episodes"] > 1000
    assert rows["real", "mpc-cem"]["path_m"] > 0.1
    assert {test["agent"] for test in summary["tests"]} == {
        "hold-still", "scripted", "imagined-policy",
    }  # fmt: skip
    assert {one["agent"] for one in summary["over_tasks"]} == set(FLAGS[1:5])
    assert summary["learning_curves"]["sac-reach"][-1]["success_at_end"] == 1.0
    for name in ("success.png", "cost.png", "profiles.png", "learning.png"):
        assert (finished / name).stat().st_size > 5000
    page = (finished / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 4 and page.count("data:image/png;base64,") >= 4
    assert "http" not in page.split("<body>")[1].split("Settings")[0]  # nothing is fetched
    assert "| real | reach | box | plain | scripted |" in (finished / "table.md").read_text()


@pytest.mark.parametrize("ray", [False, True])
def test_an_interrupted_comparison_and_other_workers_give_the_same_table(finished, tmp_path, ray):
    if ray:
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
    lines = (finished / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "settings.json").write_text((finished / "settings.json").read_text())
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])
    assert main([*FLAGS, "--output", str(tmp_path)] + ["--ray"] * ray) == 0
    for one, other in zip(*(_rows(folder) for folder in (finished, tmp_path)), strict=True):
        assert one == other


def _rows(folder) -> list[dict]:
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [{k: x for k, x in row.items() if k != "seconds_per_action"} for row in rows]


def records(agent: str, wins: list[bool], task: str = "reach") -> list[dict]:
    return [
        {"world": "real", "agent": agent, "task": task, "object": "box", "split": "plain",
         "seed": seed, "success_at_end": win}
        for seed, win in enumerate(wins)
    ]  # fmt: skip


def test_tests_are_paired_and_corrected():
    found = paired_tests([
        *records("mpc-cem", [True] * 12),
        *records("random", [False] * 12),
        *records("gc-idm", [True] * 11 + [False]),
    ])  # fmt: skip
    rows = {one["agent"]: one for one in found}
    assert rows["random"]["difference"] == -1.0
    assert rows["random"]["p"] == pytest.approx(2 * 0.5**12)
    assert rows["random"]["p_holm"] == pytest.approx(4 * 0.5**12)
    assert rows["gc-idm"]["p_holm"] == 1.0


def test_means_are_of_agents_that_met_everything():
    found = over_tasks([
        *records("mpc-cem", [True] * 5), *records("mpc-cem", [False] * 5, "grasp"),
        *records("gc-idm", [True] * 5),
    ])  # fmt: skip
    assert [one["agent"] for one in found] == ["mpc-cem"] and found[0]["iqm"] == 0.5


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="`worlds` must be among real, imagined"):
        Arguments(worlds=("dreamt",))
    with pytest.raises(ValueError, match="`tasks` must be among"):
        Arguments(tasks=("juggle",))
    both = {(job.world, job.episode.cell.agent) for job in jobs_of(Arguments(episodes=1))}
    assert ("imagined", "mpc-cem") in both and ("imagined", "scripted") not in both
