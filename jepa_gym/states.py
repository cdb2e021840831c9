"""Whether recorded or given states can be what they should be: metres, radians, closedness."""

from __future__ import annotations

import numpy as np

MAX_POSITION_M = 5.0
MAX_ANGLE_RAD = 6.3
CLOSEDNESS = (-0.1, 1.1)


def unit_problem(states: np.ndarray) -> str | None:
    """Say which states (..., 7) cannot be metres, radians and closedness, or None."""
    position, angle = np.abs(states[..., :3]).max(), np.abs(states[..., 3:6]).max()
    low, high = states[..., 6].min(), states[..., 6].max()
    if position > MAX_POSITION_M:
        return f"states hold positions of {position:g} m: they must be in metres (millimetres?)"
    if angle > MAX_ANGLE_RAD:
        return f"states hold angles of {angle:g} rad: they must be in radians (degrees?)"
    if low < CLOSEDNESS[0] or high > CLOSEDNESS[1]:
        return (
            f"states hold a gripper closedness from {low:g} to {high:g}: it must be in [0, 1], "
            "0 open and 1 closed (a width in metres or millimetres?)"
        )
    return None
