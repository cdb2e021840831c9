"""What `reset(options=...)` takes, checked before anything is touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.variations import Variation
from jepa_gym.names import did_you_mean

POINTS = {
    "start_position": (WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
    "goal_position": (WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
    "object_position": (WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]),
    "goal_place": (WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]),
}
"""Options that are points in metres, base frame -> their bounds."""
START_DISTANCE = "start_distance_m"
MOST_DISTANCE_M = 0.45
"""Longest distance that `start_distance_m` may ask for; the workspace has few that are longer."""


def parse_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a reset with points as float64 arrays.

    Args:
        options: What the user gave.
        known: Names that the task understands.

    Raises:
        ValueError: Unknown name, wrong shape, not finite, or outside the workspace.
    """
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name not in known:
            raise ValueError(
                f"`options` of this task are {known}, got {name!r}.{did_you_mean(name, known)}"
            )
        if name in POINTS:
            value = _point(name, value, *POINTS[name])
        elif name == START_DISTANCE:
            value = _distances(value)
        elif name == "variation":
            Variation().replaced(value)
        elif name == "recorded":
            value = _recorded(value)
        found[name] = value
    return found


def _recorded(value: Any) -> dict[str, np.ndarray]:
    try:
        states = {name: np.asarray(value[name], np.float64) for name in ("start", "goal")}
    except (KeyError, IndexError, TypeError, ValueError):
        states = {}
    if not states or len(value) != len(states):
        raise ValueError(
            "option `recorded` must be a dict with the keys 'start' and 'goal', two simulator "
            "states of one recorded episode"
        )
    return states


def _distances(value: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high <= MOST_DISTANCE_M:
        raise ValueError(
            f"option `{START_DISTANCE}` must be (least, largest) in metres, from 0 to "
            f"{MOST_DISTANCE_M:g}, got {value!r}"
        )
    return low, high


def _point(name: str, value: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    try:
        point = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        point = np.array(np.nan)
    if point.shape != low.shape or not ((point >= low) & (point <= high)).all():
        raise ValueError(
            f"option `{name}` must be {len(low)} numbers in metres between {low.tolist()} and "
            f"{high.tolist()}, got {value!r}"
        )
    return point
