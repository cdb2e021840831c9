"""`FrankaReach-v0`: bring the end-effector to the pose that the goal image shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jepa_gym.envs.physics.arm import OUT_OF_REACH_M
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.tasks.base import FrankaEnv
from jepa_gym.envs.tasks.episode import SUCCESS_M
from jepa_gym.envs.tasks.options import START_DISTANCE
from jepa_gym.envs.tasks.sampling import (
    OBJECT_YAW_RAD,
    sample_hand_position,
    sample_object_place,
    within,
)

STRICT_M = 0.03
"""Success within 3 cm is reported beside that within 4 cm."""
START_DISTANCE_M = (0.12, 0.22)
"""Range of the distance between start and goal: two to three moves of the default bound."""


class FrankaReachEnv(FrankaEnv):
    """Reach: success if the end-effector is within 4 cm of the goal pose at the end.

    `achieved_goal` is the end-effector's position, `desired_goal` the goal's. The object only
    stands on the table. The further reset options are `goal_position` (3,) m and `start_distance_m`
    (least, largest), how far the goal is from the start. See `FrankaEnv` for spaces, reward and
    arguments; horizon 10 steps.
    """

    OPTIONS = ("goal_position", START_DISTANCE)

    def sample_task(self) -> None:
        """Draw object, start and goal; the goal lies 12 to 22 cm away from the start."""
        distances = self.options.get(START_DISTANCE, START_DISTANCE_M)
        self.place_object(*sample_object_place(self))
        start = self.chosen("start_position", lambda: sample_hand_position(self))
        self._target = self.chosen(
            "goal_position",
            lambda: self.np_random.uniform(WORKSPACE_LOW_M, WORKSPACE_HIGH_M),
            lambda goal: within(distances, goal, start) and self._clear_of_object(goal),
        )
        self.place_arm(start, yaw=self.variation.start_yaw_rad)

    def make_goal(self) -> Iterator[str]:
        """Put the arm at the goal.

        With random goals also the gripper's opening and the hand's yaw are drawn.
        """
        closedness = yaw = 0.0
        if self.goal_source == "random":
            closedness = float(self.np_random.random())
            yaw = float(self.np_random.uniform(-OBJECT_YAW_RAD, OBJECT_YAW_RAD))
        self.place_arm(self._target, closedness, yaw)
        yield "goal"

    def achieved_goal(self) -> np.ndarray:
        """Return the end-effector's position (3,) in metres."""
        return self.arm.state()[:3]

    def task_info(self) -> dict[str, Any]:
        """Return success at 4 cm, and at 3 cm beside it, from the distance to the goal."""
        distance = float(np.linalg.norm(self.achieved_goal() - self._goal))
        success = distance <= SUCCESS_M
        failure = "out of reach" if self.ik_error_m > OUT_OF_REACH_M else "not reached"
        return {
            "is_success": success,
            "failure": None if success else failure,
            "is_success_3cm": distance <= STRICT_M,
            "distance_m": distance,
        }

    def expert_move(self) -> np.ndarray:
        """Return the straight move towards the goal, gripper unchanged."""
        return self.move_by(self.goal_position() - self.arm.state()[:3])

    def _clear_of_object(self, goal: np.ndarray) -> bool:
        offset = goal - self.object_position()
        return bool(np.linalg.norm(offset[:2]) > 0.08 or offset[2] > 0.08)
