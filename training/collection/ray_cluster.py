"""Episodes recorded on the machines of a Ray cluster: the same files as on one machine.

Workers need no common disk: each records an episode into a folder of its own and sends the files,
which this process puts into the dataset. As an episode is decided by settings and seed alone, it
does not matter who recorded it; the machines must have the same versions of the packages, and draw
their pictures with the same renderer.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.collection.record import recorded
from jepa_gym.training.data.episodes import write_episode

Files = dict[str, bytes]
"""Path below the episode's folder -> content."""


def record_on_cluster(config: CollectConfig, seeds: list[int], workers: int) -> Iterator[None]:
    """Record episodes on the cluster of RAY_ADDRESS, or on a local one that ends with this.

    Args:
        config: The collection.
        seeds: The episodes.
        workers: How many are recorded at once.

    Yields:
        None for each episode that has been put into the dataset.

    Raises:
        ImportError: If Ray is not installed.
        RuntimeError: If there is no cluster at RAY_ADDRESS, or a worker failed.
    """
    ray = _ray()
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        handler = signal.getsignal(signal.SIGTERM)
        own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        try:
            ray.init(log_to_driver=False, logging_level="error", include_dashboard=False, **own)
        except Exception as error:  # Ray raises the bare class, too
            raise RuntimeError(f"cannot reach or start a Ray cluster: {error}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process without a word
    try:
        task = ray.remote(num_cpus=1, max_retries=3)(episode_files)
        # a path of this machine means nothing to the others
        shared = ray.put(replace(config, output=Path()))
        open_seeds = iter(seeds)
        working = {task.remote(shared, seed): seed for seed in islice(open_seeds, workers)}
        while working:
            (done,), _ = ray.wait(list(working), num_returns=1)
            seed = working.pop(done)
            working |= {task.remote(shared, seed): seed for seed in islice(open_seeds, 1)}
            try:
                put_files(config.folder(seed), ray.get(done))
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"episode {seed} failed on the cluster: {error}") from error
            yield
    finally:
        if started_here:
            ray.shutdown()


def episode_files(config: CollectConfig, seed: int) -> Files:
    """Record one episode and return its files; runs on any machine.

    Args:
        config: The collection.
        seed: The episode's number.
    """
    episode = recorded(config, seed)
    with tempfile.TemporaryDirectory() as parent:
        folder = write_episode(Path(parent) / config.folder(seed).name, episode)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def put_files(folder: Path, files: Files) -> None:
    """Write the files of an episode whole or not at all; one that is there already stays.

    Args:
        folder: The episode's folder.
        files: What it holds.
    """
    temporary = folder.parent / f".{folder.name}.received.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        try:
            temporary.rename(folder)
        except OSError:  # a worker of a killed collection finished it just now
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ImportError(
            'sharing the work over machines needs Ray: pip install "jepa-gym[ray]", on all of them'
        ) from error
    return ray
