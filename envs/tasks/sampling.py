"""Draws that tasks and data collection share: where things stand, where the hand starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jepa_gym.envs.tasks.options import WORKSPACE_HIGH_M, WORKSPACE_LOW_M

if TYPE_CHECKING:
    from jepa_gym.envs.tasks.base import FrankaEnv

OBJECT_LOW_M = np.array([0.42, -0.14])
OBJECT_HIGH_M = np.array([0.58, 0.14])
OBJECT_YAW_RAD = 0.25
"""The gripper opens 8 cm along y and is not turned by the planner, so objects are turned a
little only."""
CLUTTER_LOW_M = np.array([0.34, -0.30])
CLUTTER_HIGH_M = np.array([0.70, 0.30])
CLUTTER_GAP_M = 0.12
"""Distance of a distractor's middle from everything that must stay clear of it."""


def sample_object_place(env: FrankaEnv) -> tuple[np.ndarray, float]:
    """Return position (3,) in metres and yaw (rad) of the object standing on the table."""
    place = env.options.get("object_position")
    if place is None:
        place = env.np_random.uniform(OBJECT_LOW_M, OBJECT_HIGH_M)
    yaw = env.np_random.uniform(-OBJECT_YAW_RAD, OBJECT_YAW_RAD)
    return np.array([*place, env.object_half_height()]), float(yaw)


def sample_hand_position(env: FrankaEnv, low_z_m: float = WORKSPACE_LOW_M[2]) -> np.ndarray:
    """Return a hand position (3,) in the workspace that does not touch the object."""
    low = np.array([*WORKSPACE_LOW_M[:2], low_z_m])
    while True:
        position = env.np_random.uniform(low, WORKSPACE_HIGH_M)
        offset = position - env.object_position()
        if np.linalg.norm(offset[:2]) > 0.09 or offset[2] > 0.09:
            return position


def sample_clear_places(
    rng: np.random.Generator, taken: list[np.ndarray], count: int
) -> list[np.ndarray]:
    """Return `count` places (2,) on the table, 12 cm clear of `taken` and of each other.

    Raises:
        RuntimeError: There is no room.
    """
    places: list[np.ndarray] = []
    for _ in range(count):
        for _attempt in range(1000):
            place = rng.uniform(CLUTTER_LOW_M, CLUTTER_HIGH_M)
            if all(np.linalg.norm(place - other) > CLUTTER_GAP_M for other in [*taken, *places]):
                places.append(place)
                break
        else:
            raise RuntimeError(f"no room on the table for distractor {len(places) + 1} of {count}")
    return places
