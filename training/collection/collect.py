"""Record episodes in the simulator: `jepa-gym collect --output data/franka`.

Episode number n is decided by seed n alone, so a collection that was interrupted goes on where it
stopped and ends with the same dataset, however many processes did the work.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NoReturn

import mujoco
import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

import jepa_gym
from jepa_gym.commands import run_command
from jepa_gym.envs.physics.robosuite_assets import robosuite_version
from jepa_gym.envs.pictures.rendering import parse_cameras, parse_size
from jepa_gym.envs.tasks.arguments import check_choices, check_range, check_split_has
from jepa_gym.envs.tasks.base import FrankaEnv
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.training.collection.explorers import BEHAVIOURS, check_behaviours, exploration_env
from jepa_gym.training.collection.record import record_episode
from jepa_gym.training.data import content
from jepa_gym.training.data.dataset import INDEX_NAME, episode_files, episode_folders, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError, read_metadata, write_episode
from jepa_gym.training.data.workers import work

FIRST_HELD_OUT_SEED = 1_000_000
"""Seeds from here on belong to evaluation; training data never uses them."""
SETTINGS_NAME = "collection.json"
FREE_SETTINGS = ("output", "episodes", "workers")
"""What may differ when a collection is continued: it does not change any episode."""


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """Record a dataset of short exploration episodes; run it again to resume or to add episodes."""

    output: Path
    """Folder of the dataset."""
    episodes: int = 5000
    """Number of episodes the dataset shall hold."""
    steps: int = 15
    """Moves per episode; an episode has one frame more."""
    task: str = "grasp"
    """reach, grasp, reach-with-object or pick-place: what the expert does and rewards mean."""
    objects: tuple[str, ...] = ("box", "cup")
    """Objects, taken in turn."""
    split: str | None = None
    """Variations of looks, camera and start to draw for each episode: `train` for training; the
    held-out ones are for evaluation. By default everything looks the same."""
    behaviours: dict[str, float] = field(default_factory=lambda: dict(BEHAVIOURS))
    """Who acts, by weight: random moves, moves near the object, with it in the hand, the expert."""
    camera: str = "left+wrist"
    """Camera names joined by +."""
    image_size: int = 128
    """Height and width in pixels of one camera's picture."""
    step_s: float = 0.25
    """Simulated seconds per move."""
    max_move_m: float = 0.075
    """Largest move per axis."""
    seed: int = 0
    """Seed of the first episode."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is written."""
        if self.episodes < 1 or self.steps < 1 or self.workers < 1:
            raise ValueError("`episodes`, `steps` and `workers` must be at least 1")
        if not self.objects:
            raise ValueError("`objects` must name at least one object")
        if self.seed < 0 or self.seed + self.episodes > FIRST_HELD_OUT_SEED:
            raise ValueError(
                f"episode seeds {self.seed} to {self.seed + self.episodes - 1} must lie in "
                f"[0, {FIRST_HELD_OUT_SEED}): later seeds are kept for evaluation"
            )
        check_choices(split=self.split)
        for obj in self.objects:
            check_split_has(self.split, obj)
        check_behaviours(self.task, self.behaviours)
        parse_cameras(self.camera)
        parse_size(self.image_size)
        check_range("step_s", self.step_s, 0.05, 5.0, "seconds")
        check_range("max_move_m", self.max_move_m, 0.005, 0.2, "metres")

    def settings(self) -> dict[str, Any]:
        """Return what decides the episodes, as JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in FREE_SETTINGS}
        return values | {"objects": list(self.objects)}

    def folder(self, seed: int) -> Path:
        """Return the folder of an episode."""
        return self.output / "episodes" / f"{seed:06d}"

    def object_of(self, seed: int) -> str:
        """Return the object of an episode."""
        return self.objects[seed % len(self.objects)]


def collect(config: CollectConfig) -> dict[str, Any]:
    """Record all missing episodes and write `dataset.json`.

    Returns:
        The content of `dataset.json`.

    Raises:
        ValueError: If the folder holds episodes of other settings, damaged ones, or another
            collection works in it.
        KeyboardInterrupt: On Ctrl-C or SIGTERM; finished episodes are kept.
    """
    (config.output / "episodes").mkdir(parents=True, exist_ok=True)
    with _alone(config.output):
        _check_settings(config)
        for left_over in (config.output / "episodes").glob(".*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
        seeds = _open_seeds(config)
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"):
            os.environ.setdefault(variable, "1")  # one thread per process: they share the cores
        done = config.episodes - len(seeds)
        with tqdm(total=config.episodes, initial=done, unit="episode", desc="collect") as bar:
            for _ in work(partial(_record, config), seeds, min(config.workers, len(seeds) or 1)):
                bar.update()
        return write_index(config.output, _description(config))


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
    return sorted(missing, key=lambda seed: (config.objects.index(config.object_of(seed)), seed))


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
    for name, value in expected.items():
        if metadata.get(name) != value:
            _refuse(folder, f"its `{name}` is {metadata.get(name)!r}, not {value!r}")


def _refuse(folder: Path, reason: str) -> NoReturn:
    raise ValueError(
        f"episode {folder}: {reason}; delete that folder and give the same command again, which "
        "records it anew"
    )


@lru_cache(maxsize=1)
def _environment(task: str, **kwargs: Any) -> FrankaEnv:
    """Return the environment that this process records; it is made when the object changes."""
    return exploration_env(task, **kwargs)


def _record(config: CollectConfig, seed: int) -> None:
    env = _environment(
        config.task,
        obj=config.object_of(seed),
        camera=config.camera,
        image_size=config.image_size,
        split=config.split,
        step_s=config.step_s,
        max_move_m=config.max_move_m,
    )
    episode = record_episode(env, seed, config.steps, config.behaviours)
    with suppress(FileExistsError):  # a worker of a killed collection finished it just now
        write_episode(config.folder(seed), episode)


def _description(config: CollectConfig) -> dict[str, Any]:
    return {
        "cameras": list(parse_cameras(config.camera)),
        "image_size": config.image_size,
        "step_s": config.step_s,
        "max_move_m": config.max_move_m,
        "state_convention": "hand",
        "units": {
            "state": "x y z (m, robot base), roll pitch yaw (rad, extrinsic xyz), closedness 0-1",
            "action": "dx dy dz (m, base), Euler xyz of R(t+1) R(t)^T (rad), change of closedness",
            "time": "s",
            "extrinsics": "x y z (m, robot base), Euler xyz (rad) of OpenCV's camera axes",
        },
        "settings": config.settings() | {"episodes": config.episodes},
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
    print(
        f"{config.output}: {index['episodes']} episodes, content hash {index['content_hash'][:16]}"
    )


def main() -> int:
    """Run the command line."""
    return run_command(_run, CollectConfig)


if __name__ == "__main__":
    raise SystemExit(main())
