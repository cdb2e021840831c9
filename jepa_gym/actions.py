"""What actions an environment accepts; the simulator and `JEPALatent-v0` accept the same ones.

Seven numbers: dx dy dz (m), extrinsic xyz Euler angles of the turn (rad), change of closedness.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

BOUNDS_TOLERANCE = 1e-6
"""How far an action may lie beyond its bounds and still counts as rounded."""


def checked_actions(
    actions: Any, space: spaces.Box, count: int | None = None, *, clip: bool = False
) -> np.ndarray:
    """Return actions as float64, within their bounds.

    Args:
        actions: What the user gave: (A,), or (count, A) for several environments; A is 7, unless
            the environment was made with fewer.
        space: The bounds of one environment's actions, (A,).
        count: Number of environments; None for a single action.
        clip: Clip to the bounds instead of raising.

    Returns:
        (A,) or (count, A). What lies beyond a bound by rounding only is put onto it.

    Raises:
        ValueError: They are no real numbers, have another shape, are not finite, or lie out of
            bounds; the message names the environments.
    """
    given = np.asarray(actions)
    if given.dtype.kind not in "fiu":
        raise ValueError(f"`action` must be real numbers, got values of type {given.dtype}")
    shape = space.shape if count is None else (count, *space.shape)
    if given.shape != shape:
        numbers = "dx dy dz (m), three Euler angles (rad), change of closedness; "
        raise ValueError(
            f"`action` must have shape {shape}: {numbers if space.shape == (7,) else ''}"
            f"got shape {given.shape}"
        )
    found = given.astype(np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"`action` must be finite, got {_named(found, ~np.isfinite(found))}")
    within = np.clip(found, space.low, space.high)
    outside = np.abs(found - within) > BOUNDS_TOLERANCE
    if outside.any() and not clip:
        raise ValueError(
            f"`action` is outside the bounds +-{space.high.tolist()}: {_named(found, outside)}. "
            "Clip it, or make the environment with clip_actions=True"
        )
    return within


def _named(actions: np.ndarray, wrong: np.ndarray) -> str:
    """Return the actions that have a wrong number, in words, with their environments."""
    if actions.ndim == 1:
        return f"{np.round(actions, 4).tolist()} (index {np.flatnonzero(wrong).tolist()})"
    rows = np.flatnonzero(wrong.any(-1))
    return ", ".join(f"{_named(actions[row], wrong[row])} in environment {row}" for row in rows)
