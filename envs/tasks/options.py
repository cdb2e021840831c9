"""What `reset(options=...)` takes, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jepa_gym.names import did_you_mean

WORKSPACE_LOW_M = np.array([0.34, -0.20, 0.02])
WORKSPACE_HIGH_M = np.array([0.64, 0.20, 0.34])
"""Where starts and goals are drawn and where the cameras keep the hand in view, base frame."""

POINTS = {
    "start_position": (WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
    "goal_position": (WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
    "object_position": (WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]),
    "goal_place": (WORKSPACE_LOW_M[:2], WORKSPACE_HIGH_M[:2]),
}
"""Options that are points in metres, base frame -> their bounds."""


def parse_options(options: Mapping[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the options of a reset with points as float64 arrays.

    Args:
        options: what the user gave.
        known: names that the task understands.

    Raises:
        ValueError: unknown name, wrong shape, not finite, or outside the workspace.
    """
    found: dict[str, Any] = {}
    for name, value in (options or {}).items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"`options` of this task are {known}, got {name!r}.{hint}")
        found[name] = _point(name, value, *POINTS[name]) if name in POINTS else value
    return found


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
