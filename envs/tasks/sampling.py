"""Draws that tasks and data collection share: where things stand, where the hand starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M

if TYPE_CHECKING:
    from jepa_gym.envs.tasks.episode import Episode

OBJECT_LOW_M = np.array([0.42, -0.14])
OBJECT_HIGH_M = np.array([0.58, 0.14])
OBJECT_YAW_RAD = 0.25
"""The gripper opens 8 cm along y and is not turned by the planner, so objects are turned a
little only."""
CLUTTER_LOW_M = np.array([0.28, -0.42])
CLUTTER_HIGH_M = np.array([0.80, 0.42])
ATTEMPTS = 1000
"""Draws of one place until a reset gives up."""
CLUTTER_GAP_M = 0.12
"""Distance of a distractor's middle from everything that must stay clear of it."""


def sample_object_place(env: Episode) -> tuple[np.ndarray, float]:
    """Return position (3,) in metres and yaw (rad) of the object standing on the table."""
    place = env.chosen(
        "object_position", lambda: env.np_random.uniform(OBJECT_LOW_M, OBJECT_HIGH_M)
    )
    yaw = env.np_random.uniform(-OBJECT_YAW_RAD, OBJECT_YAW_RAD)
    return np.array([*place, env.object_half_height()]), float(yaw)


def sample_hand_position(env: Episode, low_z_m: float = WORKSPACE_LOW_M[2]) -> np.ndarray:
    """Return a hand position (3,) in the workspace that does not touch the object."""
    low = np.array([*WORKSPACE_LOW_M[:2], low_z_m])

    def clear(position: np.ndarray) -> bool:
        offset = position - env.object_position()
        return bool(np.linalg.norm(offset[:2]) > 0.09 or offset[2] > 0.09)

    return first_fit(lambda: env.np_random.uniform(low, WORKSPACE_HIGH_M), clear, "place of a hand")


def first_fit(
    draw: Callable[[], np.ndarray], fits: Callable[[np.ndarray], bool], what: str
) -> np.ndarray:
    """Return the first of the drawn places that fits.

    Args:
        draw: Returns a new place.
        fits: Whether a place is good.
        what: Its name, for the message.

    Raises:
        RuntimeError: None of `ATTEMPTS` fits.
    """
    for _ in range(ATTEMPTS):
        place = draw()
        if fits(place):
            return place
    raise RuntimeError(
        f"none of {ATTEMPTS} drawn places fits as {what}: reset with other positions in `options`, "
        "fewer distractors or another seed"
    )


def sample_clear_places(
    rng: np.random.Generator, taken: list[np.ndarray], count: int
) -> list[np.ndarray]:
    """Return `count` places (2,) on the table, 12 cm clear of `taken` and of each other.

    Raises:
        RuntimeError: There is no room.
    """
    places: list[np.ndarray] = []

    def clear(place: np.ndarray) -> bool:
        return all(np.linalg.norm(place - other) > CLUTTER_GAP_M for other in [*taken, *places])

    for number in range(count):
        what = f"place of distractor {number + 1} of {count}"
        places.append(first_fit(lambda: rng.uniform(CLUTTER_LOW_M, CLUTTER_HIGH_M), clear, what))
    return places


def within(distances_m: tuple[float, float], one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two places are between `distances_m` (least, largest) apart."""
    return bool(distances_m[0] <= np.linalg.norm(one - other) <= distances_m[1])
