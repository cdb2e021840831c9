"""Episodes recorded on the machines of a Ray cluster: the same files as on one machine.

Each worker records an episode into a folder of its own and sends the files, which this process puts
into the dataset. As an episode is decided by settings and seed alone, it does not matter who
recorded it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jepa_gym.ray_cluster import run_on_cluster
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
    # a path of this machine means nothing to the others
    shared = replace(config, output=Path())
    for seed, files in run_on_cluster(episode_files, seeds, workers, shared):
        put_files(config.folder(seed), files)
        yield


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
