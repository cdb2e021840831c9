"""Record episodes in the simulator: `jepa-gym collect --output data/franka`.

Episode number n is decided by seed n alone, so a collection that was interrupted goes on where it
stopped and ends with the same dataset, however many processes did the work.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import mujoco
import numpy as np
from filelock import FileLock, Timeout

import jepa_gym
from jepa_gym.commands import run_command
from jepa_gym.envs.physics.robosuite_assets import robosuite_version
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.logs import progress_bar
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.collection.record import check_environment, recorded
from jepa_gym.training.data import content
from jepa_gym.training.data.dataset import INDEX_NAME, episode_files, episode_folders, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError, read_metadata, write_episode
from jepa_gym.training.data.workers import work

_LOG = logging.getLogger(__name__)

SETTINGS_NAME = "collection.json"


def collect(config: CollectConfig) -> dict[str, Any]:
    """Record all missing episodes and write `dataset.json`.

    Returns:
        The content of `dataset.json`.

    Raises:
        ValueError: If the folder holds episodes of other settings, damaged ones, or another
            collection works in it.
        KeyboardInterrupt: On Ctrl-C or SIGTERM; finished episodes are kept.
    """
    cameras = check_environment(config)
    (config.output / "episodes").mkdir(parents=True, exist_ok=True)
    with _alone(config.output):
        _check_settings(config)
        for left_over in (config.output / "episodes").glob(".*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        seeds = _open_seeds(config)
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
            os.environ.setdefault(variable, "1")  # one thread per process: they share the cores
        done = config.episodes - len(seeds)
        # a bar on a terminal, else a line now and then
        with progress_bar(
            total=config.episodes, initial=done, unit="episode", desc="collect"
        ) as bar:
            for _ in _recorders(config, seeds):
                bar.update()
        return write_index(config.output, _description(config, cameras))


def _recorders(config: CollectConfig, seeds: list[int]) -> Iterator[None]:
    """Record the episodes of `seeds`, in processes of this machine or of a Ray cluster."""
    workers = min(config.workers, len(seeds) or 1)
    if config.ray:
        from jepa_gym.training.collection.ray_cluster import record_on_cluster

        return record_on_cluster(config, seeds, workers)
    return work(partial(record, config), seeds, workers)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other collections out of a folder; the lock of a killed process is free."""
    try:
        with FileLock(folder / ".collect.lock", timeout=0):
            yield
    except Timeout as error:
        raise ValueError(
            f"another `jepa-gym collect` works in {folder}: wait until it is done, or stop it"
        ) from error


def _check_settings(config: CollectConfig) -> None:
    """Write the settings of a new collection; refuse others for one that exists.

    Raises:
        ValueError: If the folder's settings differ or cannot be read.
    """
    path, index = config.output / SETTINGS_NAME, config.output / INDEX_NAME
    settings = config.settings()
    source = path if path.is_file() else index
    if not source.is_file():
        if episode_folders(config.output):
            raise ValueError(
                f"{config.output} holds episodes but no {SETTINGS_NAME}, so nobody knows how they "
                "were recorded; give another --output, or delete the episodes"
            )
    else:
        try:
            known = parse_json(source.read_text())
            known = known if source == path else known["settings"]
            # settings that an earlier version did not have had these values
            known = CollectConfig(Path()).settings() | known
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{source} is damaged ({error}): restore it, or delete {config.output} and "
                "collect anew"
            ) from error
        other = [
            f"{name}={known[name]!r}, not {value!r}"
            for name, value in settings.items()
            if known[name] != value
        ]
        if other:
            raise ValueError(
                f"{config.output} was collected with {'; '.join(other)}: give the same settings to "
                "go on, or another --output"
            )
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def _open_seeds(config: CollectConfig) -> list[int]:
    """Return the seeds whose episodes are missing, those of one object together.

    Raises:
        ValueError: If an existing episode is damaged or is none of this collection.
    """
    seeds = range(config.seed, config.seed + config.episodes)
    existing = {folder.name: folder for folder in episode_folders(config.output)}
    strange = sorted(existing.keys() - {config.folder(seed).name for seed in seeds})
    if strange:
        raise ValueError(
            f"{config.output} holds {len(strange)} episodes that are none of the {config.episodes} "
            f"asked for (the last one is {strange[-1]}): raise --episodes, or give another --output"
        )
    known = content.read_files(config.output)
    found = content.hash_files(config.output, episode_files(config.output), known)
    for name in content.changed_names(known, found):
        if name in known and Path(name).parts[1] in existing:
            _refuse(config.output / Path(*Path(name).parts[:2]), f"{name} was changed")
    for seed in seeds:
        if config.folder(seed).name in existing:
            _check_episode(config, seed)
    missing = [seed for seed in seeds if config.folder(seed).name not in existing]
    if config.env is not None:
        return missing
    order = {name: index for index, name in enumerate(config.objects)}
    return sorted(missing, key=lambda seed: (order[config.objects[seed % len(order)]], seed))


def _check_episode(config: CollectConfig, seed: int) -> None:
    folder = config.folder(seed)
    try:
        metadata = read_metadata(folder)
    except CorruptEpisodeError as error:
        _refuse(folder, error.reason)
    expected = {
        "step_s": config.step_s,
        "object": config.object_of(seed),
        "seed": seed,
        "trajectory_length": config.steps + 1,
    }
    if metadata.get("ended_early"):
        del expected["trajectory_length"]
    for name, value in expected.items():
        if metadata.get(name) != value:
            _refuse(folder, f"its `{name}` is {metadata.get(name)!r}, not {value!r}")


def _refuse(folder: Path, reason: str) -> NoReturn:
    raise ValueError(
        f"episode {folder}: {reason}; delete that folder and give the same command again, which "
        "records it anew"
    )


def record(config: CollectConfig, seed: int) -> None:
    """Record one episode into the dataset's folder.

    Args:
        config: The collection.
        seed: The episode's number.
    """
    episode = recorded(config, seed)
    with suppress(FileExistsError):  # a worker of a killed collection finished it just now
        write_episode(config.folder(seed), episode)


def _description(config: CollectConfig, cameras: tuple[str, ...]) -> dict[str, Any]:
    fields = index_fields(cameras, config.image_size, config.step_s, config.max_move_m)
    return fields | {"settings": config.settings() | {"episodes": config.episodes}}


def index_fields(
    cameras: Sequence[str], image_size: int, step_s: float, max_move_m: float
) -> dict[str, Any]:
    """Return what the index of a dataset that was recorded here says, see `write_index`.

    Args:
        cameras: Names of the views.
        image_size: Height and width in pixels of one.
        step_s: Seconds between frames.
        max_move_m: Bound of a move along each axis, metres.
    """
    return {
        "cameras": list(cameras),
        "image_size": image_size,
        "step_s": step_s,
        "max_move_m": max_move_m,
        "state_convention": "hand",
        "units": {
            "state": "x y z (m, robot base), roll pitch yaw (rad, extrinsic xyz), closedness 0-1",
            "action": "dx dy dz (m, base), Euler xyz of R(t+1) R(t)^T (rad), change of closedness",
            "time": "s",
            "extrinsics": "x y z (m, robot base), Euler xyz (rad) of OpenCV's camera axes",
        },
        "versions": {
            "jepa_gym": jepa_gym.__version__,
            "mujoco": mujoco.__version__,
            "robosuite": robosuite_version(),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _run(config: CollectConfig) -> None:
    index = collect(config)
    _LOG.info(
        f"{config.output}: {index['episodes']} episodes, content hash {index['content_hash'][:16]}"
    )


def main() -> int:
    """Run the command line."""
    return run_command(_run, CollectConfig)


if __name__ == "__main__":
    raise SystemExit(main())
