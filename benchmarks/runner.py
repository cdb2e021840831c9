"""Run the jobs of a benchmark over worker processes and keep each result when it is finished.

Workers are processes of one thread each. They end with their parent, however that ends, and a run
that is given again leaves out what is finished (`results.Results`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from typing import Any, Protocol

from jepa_gym.benchmarks.results import Record, Results
from jepa_gym.envs.vector import LIBRARY_THREADS
from jepa_gym.logs import progress_bar
from jepa_gym.ray_cluster import run_on_cluster

_LOG = logging.getLogger(__name__)


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
    ray: bool = False,
) -> list[Record]:
    """Run what is not finished yet, in parallel, and append each record when it is.

    Args:
        jobs: What to run.
        results: Knows what is finished and keeps the rest.
        run: Runs one job and returns what came of it; importable by name.
        workers: Number of processes of one thread each.
        what: What the jobs are called.
        ray: Run them on a Ray cluster, see `jepa_gym.ray_cluster`.

    Returns:
        The jobs' records in the order of the jobs, each with its identity.

    Raises:
        BenchmarkError: If a job fails or a worker dies; finished jobs stay in the results.
        ImportError: If Ray is asked for and not installed.
    """
    records = results.finished([job.identity for job in jobs])
    open_jobs = [index for index, record in enumerate(records) if record is None]
    done = len(jobs) - len(open_jobs)
    if done:
        _LOG.info(f"{done} of {len(jobs)} {what} were finished before; {results.path} has them.")
    if open_jobs:
        share = _on_cluster if ray else _in_processes
        outcomes = share(run, jobs, open_jobs, min(workers, len(open_jobs)))
        try:
            with closing(outcomes):
                for index, outcome in progress_bar(
                    outcomes, what, len(jobs), initial=done, unit=what[:-1]
                ):
                    records[index] = record = jobs[index].identity | outcome
                    results.append(record)
                    _LOG.debug(f"finished: {jobs[index]}")
        except _JobError as error:
            raise BenchmarkError(
                f"{error} The {len(results.records)} finished {what} are kept in {results.path}."
            ) from error
    return [record for record in records if record is not None]


class _JobError(RuntimeError):
    """A job failed."""


def _in_processes(
    run: Callable[[Any], Record], jobs: Sequence[Job], indices: Sequence[int], workers: int
) -> Generator[tuple[int, Record], None, None]:
    """Yield the index of each finished job with what came of it."""
    with _workers(workers) as pool:
        futures = {pool.submit(run, jobs[index]): index for index in indices}
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                raise _JobError(f"{jobs[futures[future]]} failed with {told}.") from error
            yield futures[future], outcome


def _on_cluster(
    run: Callable[[Any], Record], jobs: Sequence[Job], indices: Sequence[int], workers: int
) -> Generator[tuple[int, Record], None, None]:
    """The same on a Ray cluster."""
    try:
        yield from run_on_cluster(_run_numbered, indices, workers, run, jobs)
    except RuntimeError as error:
        raise _JobError(f"{error}.") from error


def _run_numbered(run: Callable[[Any], Record], jobs: Sequence[Job], index: int) -> Record:
    return run(jobs[index])


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
