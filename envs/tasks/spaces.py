"""Action and observation spaces, in physical units."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

MAX_TURN_RAD = 0.3
REACH_M = 2.0
"""Bound of every position in the observation space; the arm reaches 0.86 m."""
MAX_DEPTH_M = 10.0


def action_space(max_move_m: float) -> spaces.Box:
    """Return the box (7,) of actions: +-`max_move_m` m, +-0.3 rad, change of closedness +-1."""
    high = np.array([max_move_m] * 3 + [MAX_TURN_RAD] * 3 + [1.0], np.float32)
    return spaces.Box(-high, high)


def observation_space(frame: tuple[int, int] | None, depth: bool) -> spaces.Dict:
    """Return the space of observations.

    Args:
        frame: (rows, columns) of a picture with all its views, None without pictures.
        depth: Whether depth is observed too.
    """
    high = np.array([REACH_M] * 3 + [np.pi] * 3 + [1.0], np.float32)
    low = -high * np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    state = spaces.Box(low, high, dtype=np.float32)
    place = spaces.Box(-REACH_M, REACH_M, (3,), np.float32)
    found: dict[str, spaces.Space] = {
        "observation": state,
        "achieved_goal": place,
        "desired_goal": place,
    }
    if frame is not None:
        found["goal_state"] = state
        for key in ("pixels", "goal_pixels"):
            found[key] = spaces.Box(0, 255, (*frame, 3), np.uint8)
        if depth:
            found["depth"] = spaces.Box(0.0, MAX_DEPTH_M, frame, np.float32)
    return spaces.Dict(found)


def checked_action(action: np.ndarray, space: spaces.Box, clip: bool) -> np.ndarray:
    """Return an action (7,) float64 within the bounds.

    Args:
        action: What the user gave.
        space: The bounds.
        clip: Clip to the bounds instead of raising.

    Raises:
        ValueError: Wrong shape, not finite, or out of bounds.
    """
    action = np.asarray(action, dtype=np.float64)
    if action.shape != (7,):
        raise ValueError(
            "`action` must have shape (7,): dx dy dz (m), three Euler angles (rad), "
            f"change of closedness; got shape {action.shape}"
        )
    if not np.isfinite(action).all():
        raise ValueError(f"`action` must be finite, got {action}")
    if clip:
        return np.clip(action, space.low, space.high)
    outside = (action < space.low - 1e-6) | (action > space.high + 1e-6)
    if outside.any():
        raise ValueError(
            f"`action` {np.round(action, 4)} is outside the bounds +-{space.high} at index "
            f"{np.flatnonzero(outside).tolist()}. Clip it, or make the environment with "
            "clip_actions=True."
        )
    return action
