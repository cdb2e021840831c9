"""The runner over fake episodes, in real worker processes."""

from __future__ import annotations

import json
import os

import pytest

from jepa_gym.benchmarks.runner import BenchmarkError, Cell, Job, run_jobs


def succeed(job: Job):
    record = {"seed": job.seed, "agent": job.cell.agent, "threads": os.environ["OMP_NUM_THREADS"]}
    return record, None


def fail_on_seed_3(job: Job):
    if job.seed == 3:
        raise RuntimeError("the arm fell off")
    return succeed(job)


def die_on_seed_3(job: Job):
    if job.seed == 3:
        os._exit(1)
    return succeed(job)


@pytest.fixture
def jobs() -> list[Job]:
    return [Job(Cell("random", "reach", "box"), seed, "none") for seed in range(8)]


def test_results_keep_the_order_of_the_jobs(jobs, tmp_path):
    before = os.environ.get("OMP_NUM_THREADS")
    records, films = run_jobs(jobs, tmp_path / "episodes.jsonl", 2, succeed)
    assert [record["seed"] for record in records] == list(range(8))
    assert {record["threads"] for record in records} == {"1"}
    assert films == []
    assert os.environ.get("OMP_NUM_THREADS") == before
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == list(range(8))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (fail_on_seed_3, r"random on reach box \(image\), seed 3 failed with .* the arm fell off"),
        (die_on_seed_3, "BrokenProcessPool"),
    ],
)
def test_a_failure_names_itself_and_keeps_finished_episodes(run, message, jobs, tmp_path):
    path = tmp_path / "episodes.jsonl"
    with pytest.raises(BenchmarkError, match=message) as caught:
        run_jobs(jobs, path, 1, run)
    kept = [json.loads(line)["seed"] for line in path.read_text().splitlines()]
    assert f"The {len(kept)} finished episodes are kept" in str(caught.value)
    assert 3 not in kept
