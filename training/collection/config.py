"""The settings of `jepa-gym collect`, and which of them decide what is recorded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jepa_gym import TASKS
from jepa_gym.envs.pictures.rendering import parse_cameras, parse_size
from jepa_gym.envs.splits import split_objects
from jepa_gym.envs.tasks.arguments import check_choices, check_range, check_split_has
from jepa_gym.files import parse_json
from jepa_gym.names import check_choice
from jepa_gym.training.collection.explorers import BEHAVIOURS, DEFAULT_MIX
from jepa_gym.training.data.dataset import BOUNDS

FIRST_HELD_OUT_SEED = 1_000_000
"""Seeds from here on belong to evaluation; training data never uses them."""
FREE_SETTINGS = ("output", "episodes", "workers", "ray")
"""What may differ when a collection is continued: it does not change any episode."""
DEFAULT_OBJECTS = ("box", "cup")
SUITE_SETTINGS = ("task", "objects", "split")
"""What means something for the suite's own tasks only."""


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
    objects: tuple[str, ...] = ()
    """Objects, taken in turn: those of docs/tasks.md, such as box, cup, can or lemon. By default
    box and cup, with `split` all objects of the split."""
    split: str | None = None
    """Draw looks, camera, start and distractors of each episode from a split of docs/tasks.md:
    `train` for training; the other splits are for evaluation. Without it everything looks the same
    and the table is free."""
    behaviours: dict[str, float] | None = None
    """Who acts, as names and weights: `--behaviours expert 1 push 0.5`. Moves at `random`, `near`
    the object, or with it `held`; the task's `expert` with noise and mistakes; the scripts
    approach, grasp, regrasp, miss, push, carry, place and release. By default random 0.2, near 0.2,
    held 0.25, expert 0.35; environments of `--env` have others. See docs/collect.md."""
    env: str | None = None
    """Record this Gymnasium environment instead of a task of the suite: `robosuite/Lift`, any
    registered id, or `module:id`, which imports the module first."""
    adapter: str | None = None
    """`module:class`, what tells states, pictures and time of `--env`; see docs/collect.md."""
    env_kwargs: str = "{}"
    """More arguments of `gym.make` for `--env`, as JSON."""
    camera: str = "left+wrist"
    """Views joined by +: left, right, front, droid, wrist; with `--env`, those that it has."""
    image_size: int = 128
    """Height and width in pixels of one view's picture."""
    step_s: float = 0.25
    """Simulated seconds per move."""
    max_move_m: float = 0.075
    """Largest move per axis, metres."""
    seed: int = 0
    """Seed of the first episode."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes; with `--ray`, episodes that are recorded at once in the whole cluster."""
    ray: bool = False
    """Record on the machines of a Ray cluster (RAY_ADDRESS), or on this one if there is none; the
    episodes are the same. Needs the extra `ray`."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is written."""
        if self.episodes < 1 or self.steps < 1 or self.workers < 1:
            raise ValueError("`episodes`, `steps` and `workers` must be at least 1")
        if self.seed < 0 or self.seed + self.episodes > FIRST_HELD_OUT_SEED:
            raise ValueError(
                f"episode seeds {self.seed} to {self.seed + self.episodes - 1} must lie in "
                f"[0, {FIRST_HELD_OUT_SEED}): later seeds are kept for evaluation"
            )
        parse_size(self.image_size)
        if self.behaviours is not None:
            _check_weights(self.behaviours)
        if self.env is None:
            self._check_suite()
        else:
            self._check_foreign()
        if not self.objects and self.env is None:
            chosen = DEFAULT_OBJECTS if self.split is None else split_objects(self.split)
            object.__setattr__(self, "objects", chosen)

    def _check_suite(self) -> None:
        for name in ("adapter", "env_kwargs"):
            if getattr(self, name) != _default(name):
                raise ValueError(f"`{name}` belongs to `env`; the suite's tasks need none")
        check_choice("task", self.task, TASKS)
        check_choices(split=self.split)
        for obj in self.objects:
            check_split_has(self.split, obj)
        for name in self.behaviours or ():
            check_choice("behaviour", name, BEHAVIOURS)
        parse_cameras(self.camera)
        check_range("step_s", self.step_s, 0.05, 5.0, "seconds")
        check_range("max_move_m", self.max_move_m, 0.005, 0.2, "metres")

    def _check_foreign(self) -> None:
        for name in SUITE_SETTINGS:
            if getattr(self, name) != _default(name):
                raise ValueError(
                    f"`{name}` belongs to the suite's own tasks; leave it out beside `env`, whose "
                    "arguments are given by `env_kwargs`"
                )
        if self.adapter is not None and not all(self.adapter.partition(":")):
            raise ValueError(f"`adapter` must be module:class, got {self.adapter!r}")
        self.env_arguments()
        for name, unit in (("step_s", "seconds"), ("max_move_m", "metres")):
            low, high = BOUNDS[name]
            check_range(name, getattr(self, name), low, high, unit)

    def env_arguments(self) -> dict[str, Any]:
        """Return the arguments of `gym.make` that `env_kwargs` gives.

        Raises:
            ValueError: If it is no JSON object.
        """
        try:
            found = parse_json(self.env_kwargs)
        except ValueError as error:
            raise ValueError(f"`env_kwargs` is not JSON ({error})") from error
        if not isinstance(found, dict):
            raise ValueError(f'`env_kwargs` must be like {{"name": value}}, got {self.env_kwargs}')
        return found

    def settings(self) -> dict[str, Any]:
        """Return what decides the episodes, as JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in FREE_SETTINGS}
        mix = self.behaviours
        if self.env is None:
            mix = self.mix(DEFAULT_MIX)
        return values | {"objects": list(self.objects), "behaviours": mix}

    def mix(self, default: dict[str, float]) -> dict[str, float]:
        """Return behaviour -> its weight, those that have one."""
        weights = default if self.behaviours is None else self.behaviours
        return {name: weight for name, weight in weights.items() if weight}

    def folder(self, seed: int) -> Path:
        """Return the folder of an episode."""
        return self.output / "episodes" / f"{seed:06d}"

    def object_of(self, seed: int) -> str | None:
        """Return the object of an episode, None where the environment has its own."""
        return self.objects[seed % len(self.objects)] if self.env is None else None


def _check_weights(behaviours: dict[str, float]) -> None:
    """Raise ValueError if weights are negative or all zero."""
    if min(behaviours.values(), default=0) < 0 or not sum(behaviours.values()) > 0:
        raise ValueError(f"weights of behaviours must be positive, got {behaviours}")


def _default(name: str) -> Any:
    return next(field.default for field in fields(CollectConfig) if field.name == name)
