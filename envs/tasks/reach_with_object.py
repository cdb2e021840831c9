"""`FrankaReachWithObject-v0`: bring the held object to where the goal image shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jepa_gym.envs.physics.arm import OUT_OF_REACH_M
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.tasks.episode import SUCCESS_M
from jepa_gym.envs.tasks.manipulation import ObjectTaskEnv
from jepa_gym.envs.tasks.options import START_DISTANCE
from jepa_gym.envs.tasks.reach import START_DISTANCE_M
from jepa_gym.envs.tasks.sampling import OBJECT_YAW_RAD, sample_object_place, within

CLEARANCE_M = 0.03
"""Least height of the object above the table at the start and in goals."""


class FrankaReachWithObjectEnv(ObjectTaskEnv):
    """Reach with object: success if the object is held and within 4 cm of the goal at the end.

    The episode starts with the object in the hand, from a simulated grasp. `achieved_goal` is the
    object's centre, `desired_goal` where the goal image shows it; the reward reads positions alone,
    `info["is_success"]` also asks that both fingers hold the object. The further reset options are
    `goal_position` (3,) m, of the hand, and `start_distance_m` (least, largest), how far it is from
    the hand's start. See `FrankaEnv` for spaces and arguments; horizon 10 steps.
    """

    OPTIONS = ("goal_position", START_DISTANCE)

    def sample_task(self) -> None:
        """Grasp the object, then draw start and goal of the hand, 12 to 22 cm apart."""
        distances = self.options.get(START_DISTANCE, START_DISTANCE_M)
        self.place_object(*sample_object_place(self))
        start = self.chosen("start_position", self._sample_hand)
        self._target = self.chosen(
            "goal_position", self._sample_hand, lambda goal: within(distances, goal, start)
        )
        self.simulate_grasp()
        self.carry(start)

    def make_goal(self) -> Iterator[str]:
        """Carry the object to the goal.

        With random goals also the hand's yaw is drawn.
        """
        yaw = 0.0
        if self.goal_source == "random":
            yaw = float(self.np_random.uniform(-OBJECT_YAW_RAD, OBJECT_YAW_RAD))
        self.carry(self._target, yaw)
        yield "goal"

    def task_info(self) -> dict[str, Any]:
        """Return success (held, within 4 cm) and the object's distance to the goal."""
        distance = float(np.linalg.norm(self.object_position() - self._goal))
        held = self.object_held()
        success = bool(held and distance <= SUCCESS_M)
        failure = self.not_held_failure()
        if held:
            failure = "out of reach" if self.ik_error_m > OUT_OF_REACH_M else "not reached"
        return {
            "is_success": success,
            "failure": None if success else failure,
            "is_held": held,
            "distance_m": distance,
        }

    def expert_move(self) -> np.ndarray:
        """Return the straight move of the object to the goal; a dropped object is grasped again."""
        if not self.object_held():
            return self.grasp_move()
        return self.move_by(self.goal_position() - self.object_position())

    def _sample_hand(self) -> np.ndarray:
        """Return a hand position (3,) from which the held object is clear of the table."""
        scale = self.variation.object_scale
        below = self.object_half_height() + self.object_spec.grasp_height_m * scale
        low = np.array([*WORKSPACE_LOW_M[:2], below + CLEARANCE_M])
        return self.np_random.uniform(low, WORKSPACE_HIGH_M)
