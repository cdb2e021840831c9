"""Draws that tasks and data collection share: where the object stands, where the hand starts."""

from __future__ import annotations

import numpy as np

from jepa_gym.envs.base import WORKSPACE_HIGH_M, WORKSPACE_LOW_M, FrankaEnv

OBJECT_LOW_M = np.array([0.42, -0.14])
OBJECT_HIGH_M = np.array([0.58, 0.14])
OBJECT_YAW_RAD = 0.25
"""The gripper opens 8 cm along y and is not turned by the planner, so objects are turned a
little only."""


def sample_object_place(env: FrankaEnv) -> tuple[np.ndarray, float]:
    """Return position (3,) in metres and yaw (rad) of the object standing on the table."""
    place = env.np_random.uniform(OBJECT_LOW_M, OBJECT_HIGH_M)
    yaw = env.np_random.uniform(-OBJECT_YAW_RAD, OBJECT_YAW_RAD)
    return np.array([*place, env.object_spec.half_height_m]), float(yaw)


def sample_hand_position(env: FrankaEnv, low_z_m: float = WORKSPACE_LOW_M[2]) -> np.ndarray:
    """Return a hand position (3,) in the workspace that does not touch the object."""
    low = np.array([*WORKSPACE_LOW_M[:2], low_z_m])
    while True:
        position = env.np_random.uniform(low, WORKSPACE_HIGH_M)
        offset = position - env.object_position()
        if np.linalg.norm(offset[:2]) > 0.09 or offset[2] > 0.09:
            return position
