"""Checks of what `gym.make` is given; every message names the allowed values."""

from __future__ import annotations

from typing import Any

from jepa_gym.config import STATE_CONVENTIONS
from jepa_gym.envs.physics.objects import object_spec
from jepa_gym.envs.splits import SPLITS, split_objects
from jepa_gym.names import check_choice

OBS_MODES = ("both", "pixels", "state")
GOAL_SOURCES = ("expert", "random")
PROTOCOLS = ("published", "suite", "one")
CHOICES: dict[str, tuple[str | None, ...]] = {
    "obs_mode": OBS_MODES,
    "goal_source": GOAL_SOURCES,
    "protocol": PROTOCOLS,
    "state_convention": STATE_CONVENTIONS,
    "split": (None, *SPLITS),
    "render_mode": (None, "rgb_array", "human"),
}
"""Argument -> its allowed values."""


def check_choices(**arguments: Any) -> None:
    """Raise ValueError if an argument of `CHOICES` has another value."""
    for name, value in arguments.items():
        check_choice(name, value, CHOICES[name])


def check_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    """Raise ValueError if a number is outside [low, high]."""
    if not low <= value <= high:
        raise ValueError(f"`{name}` must be in [{low:g}, {high:g}] {unit}, got {value!r}")


def check_split_has(split: str | None, obj: str) -> None:
    """Raise ValueError if an object is not of the catalogue, or does not belong to a split."""
    object_spec(obj)
    if split is not None and obj not in split_objects(split):
        raise ValueError(
            f"the split {split!r} has the objects {split_objects(split)}, got obj={obj!r}"
        )
