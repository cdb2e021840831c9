"""The runner over fake episodes, in real worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from jepa_gym.benchmarks.results import Results
from jepa_gym.benchmarks.runner import BenchmarkError, run_jobs

JOBS = 12
SCRIPT = """
import sys
from pathlib import Path
from jepa_gym.benchmarks.results import Results
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.commands import guarded
sys.path.insert(0, sys.argv[2])
from test_runner import SlowJob, slow

def run():
    with Results(Path(sys.argv[1]), "episodes.jsonl", {}) as results:
        jobs = [SlowJob(seed, sys.argv[1]) for seed in range(int(sys.argv[3]))]
        run_jobs(jobs, results, slow, 1)

if __name__ == "__main__":
    sys.exit(guarded(run))
"""


@dataclass(frozen=True)
class FakeJob:
    seed: int

    @property
    def identity(self):
        return {"seed": self.seed}

    def __str__(self) -> str:
        return f"seed {self.seed}"


@dataclass(frozen=True)
class SlowJob(FakeJob):
    folder: str


def succeed(job: FakeJob):
    return {"threads": os.environ["OMP_NUM_THREADS"]}


def fail_on_seed_3(job: FakeJob):
    if job.seed == 3:
        raise RuntimeError("the arm fell off")
    return succeed(job)


def die_on_seed_3(job: FakeJob):
    if job.seed == 3:
        os._exit(1)
    return succeed(job)


def slow(job: SlowJob):
    """Leave the worker's process id, and one mark for every time that a job was begun."""
    with Path(job.folder, f"began_{job.seed}").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    return {"worker": os.getpid()}


@pytest.fixture
def jobs() -> list[FakeJob]:
    return [FakeJob(seed) for seed in range(8)]


@pytest.fixture
def results(tmp_path):
    with Results(tmp_path, "episodes.jsonl", {}) as results:
        yield results


def seeds_in(folder: Path) -> list[int]:
    path = folder / "episodes.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line)["seed"] for line in lines]


def test_results_keep_the_order_of_the_jobs(jobs, results, tmp_path):
    before = os.environ.get("OMP_NUM_THREADS")
    records = run_jobs(jobs, results, succeed)
    assert [record["seed"] for record in records] == list(range(8))
    assert {record["threads"] for record in records} == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == before
    assert sorted(seeds_in(tmp_path)) == list(range(8))


@pytest.mark.parametrize(
    ("run", "message"),
    [(fail_on_seed_3, "seed 3 failed with .* the arm fell off"), (die_on_seed_3, "BrokenProcess")],
)
def test_a_failure_names_itself_and_the_next_run_goes_on(run, message, jobs, results, tmp_path):
    with pytest.raises(BenchmarkError, match=message) as caught:
        run_jobs(jobs, results, run, 1)
    kept = seeds_in(tmp_path)
    assert f"The {len(kept)} finished episodes are kept" in str(caught.value)
    assert 3 not in kept
    assert [record["seed"] for record in run_jobs(jobs, results, succeed, 1)] == list(range(8))
    assert seeds_in(tmp_path)[: len(kept)] == kept and sorted(seeds_in(tmp_path)) == list(range(8))


def test_what_is_finished_is_not_run_again(jobs, results, capsys):
    run_jobs(jobs, results, succeed, 1)
    assert len(run_jobs(jobs, results, fail_on_seed_3, 1)) == 8
    assert "8 of 8 episodes were finished before" in capsys.readouterr().err


def test_stopped_at_any_moment_nothing_finished_is_lost(tmp_path):
    """The workers end with their parent, and only what was not finished is run again."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(Path(__file__).parent), str(JOBS)]
    statuses = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    kept: list[int] = []
    for number, status in statuses.items():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_until(lambda before=kept: len(seeds_in(tmp_path)) > len(before))
        process.send_signal(number)
        error = process.communicate(timeout=30)[1]
        assert process.returncode == status, error
        assert "Traceback" not in error
        assert ("give the same command again" in error) == (status > 0)
        workers = {int(p) for f in tmp_path.glob("began_*") for p in f.read_text().split()}
        wait_until(lambda workers=workers: not any(map(alive, workers)))
        assert seeds_in(tmp_path)[: len(kept)] == kept
        kept = seeds_in(tmp_path)
        assert len(kept) < JOBS
    begun = {seed: began(tmp_path, seed) for seed in kept}
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert f"{len(kept)} of {JOBS} episodes were finished before" in again.stderr
    assert sorted(seeds_in(tmp_path)) == list(range(JOBS))
    assert {seed: began(tmp_path, seed) for seed in kept} == begun


def began(folder: Path, seed: int) -> int:
    return len((folder / f"began_{seed}").read_text().split())


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Return whether a process runs; one that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
