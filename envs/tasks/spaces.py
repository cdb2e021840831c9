"""Action and observation spaces, in physical units."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from jepa_gym.config import MAX_GRIPPER_CHANGE, MAX_TURN_RAD

REACH_M = 2.0
"""Bound of every position in the observation space; the arm reaches 0.86 m."""
MAX_DEPTH_M = 10.0


def action_space(max_move_m: float) -> spaces.Box:
    """Return the box (7,) of actions: +-`max_move_m` m, +-0.3 rad, change of closedness +-1."""
    high = np.array([max_move_m] * 3 + [MAX_TURN_RAD] * 3 + [MAX_GRIPPER_CHANGE], np.float32)
    return spaces.Box(-high, high)


def state_space() -> spaces.Box:
    """Return the box (7,) of states: metres, radians, closedness."""
    high = np.array([REACH_M] * 3 + [np.pi] * 3 + [1.0], np.float32)
    low = -high * np.array([1, 1, 1, 1, 1, 1, 0], np.float32)
    return spaces.Box(low, high, dtype=np.float32)


def pixel_space(frame: tuple[int, int]) -> spaces.Box:
    """Return the box of pictures with (rows, columns)."""
    return spaces.Box(0, 255, (*frame, 3), np.uint8)


def observation_space(frame: tuple[int, int] | None, depth: bool) -> spaces.Dict:
    """Return the space of observations.

    Args:
        frame: (rows, columns) of a picture with all its views, None without pictures.
        depth: Whether depth is observed too.
    """
    state = state_space()
    place = spaces.Box(-REACH_M, REACH_M, (3,), np.float32)
    found: dict[str, spaces.Space] = {
        "observation": state,
        "achieved_goal": place,
        "desired_goal": place,
    }
    if frame is not None:
        found["goal_state"] = state
        for key in ("pixels", "goal_pixels"):
            found[key] = pixel_space(frame)
        if depth:
            found["depth"] = spaces.Box(0.0, MAX_DEPTH_M, frame, np.float32)
    return spaces.Dict(found)
