"""Run the jobs of a benchmark over worker processes and keep each result when it is finished.

Workers are processes of one thread each. They end with their parent, however that ends, and a run
that is given again leaves out what is finished (`results.Results`).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm

from jepa_gym.benchmarks.results import Record, Results
from jepa_gym.envs.vector import LIBRARY_THREADS


class BenchmarkError(RuntimeError):
    """A benchmark could not go on; finished jobs are kept."""


class Job(Protocol):
    """What is to be run; `str` names it in error messages."""

    @property
    def identity(self) -> Record:
        """What tells it from all other jobs (JSON types), with the same names for each."""
        ...


def run_jobs(
    jobs: Sequence[Job],
    results: Results,
    run: Callable[[Any], Record],
    workers: int = 2,
    what: str = "episodes",
) -> list[Record]:
    """Run what is not finished yet, in parallel, and append each record when it is.

    Args:
        jobs: What to run.
        results: Knows what is finished and keeps the rest.
        run: Runs one job and returns what came of it; importable by name.
        workers: Number of processes of one thread each.
        what: What the jobs are called.

    Returns:
        The jobs' records in the order of the jobs, each with its identity.

    Raises:
        BenchmarkError: If a job fails or a worker dies; finished jobs stay in the results.
    """
    records = results.finished([job.identity for job in jobs])
    open_jobs = [index for index, record in enumerate(records) if record is None]
    done = len(jobs) - len(open_jobs)
    if done:
        print(f"{done} of {len(jobs)} {what} were finished before; {results.path} has them.")
    if open_jobs:
        with _workers(min(workers, len(open_jobs))) as pool:
            futures = {pool.submit(run, jobs[index]): index for index in open_jobs}
            bar = tqdm(as_completed(futures), what, len(jobs), initial=done, unit=what[:-1])
            for future in bar:
                job = jobs[index := futures[future]]
                try:
                    outcome = future.result()
                except Exception as error:
                    raise BenchmarkError(
                        f"{job} failed with {type(error).__name__}: {error}. The "
                        f"{len(results.records)} finished {what} are kept in {results.path}."
                    ) from error
                records[index] = record = job.identity | outcome
                results.append(record)
    return [record for record in records if record is not None]


@contextmanager
def _workers(number: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes; when the block fails or is interrupted, they end at once."""
    before = {name: os.environ.get(name) for name in LIBRARY_THREADS}
    others = set(multiprocessing.active_children())
    os.environ.update(LIBRARY_THREADS)  # workers read it when they start
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin_worker)
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
