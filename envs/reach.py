"""`FrankaReach-v0`: bring the end-effector to the pose that the goal image shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_gym.envs.base import WORKSPACE_HIGH_M, WORKSPACE_LOW_M, FrankaEnv, SubGoal
from jepa_gym.envs.sampling import sample_hand_position, sample_object_place

SUCCESS_M = 0.04
START_DISTANCE_M = (0.12, 0.22)
"""Range of the distance between start and goal: two to three moves of the default bound."""


class FrankaReachEnv(FrankaEnv):
    """Reach: success if the end-effector is within 4 cm of the goal pose at the end.

    `achieved_goal` is the end-effector's position, `desired_goal` the goal's. The object only
    stands on the table. See `FrankaEnv` for spaces, reward and arguments; horizon 10 steps.
    """

    def sample_task(self) -> None:
        """Draw object, start and goal; the goal lies 12 to 22 cm away from the start."""
        self.place_object(*sample_object_place(self))
        start = sample_hand_position(self)
        while True:
            goal = self.np_random.uniform(WORKSPACE_LOW_M, WORKSPACE_HIGH_M)
            near, far = START_DISTANCE_M
            if near <= np.linalg.norm(goal - start) <= far and self._clear_of_object(goal):
                break
        self._target = goal
        self.place_arm(start)

    def make_goal(self) -> tuple[np.ndarray, list[SubGoal]]:
        """Return the goal position and the picture of the arm at it."""
        self.place_arm(self._target)
        subgoal = self.subgoal_now()
        return subgoal.state[:3].copy(), [subgoal]

    def achieved_goal(self) -> np.ndarray:
        """Return the end-effector's position (3,) in metres."""
        return self.arm.state()[:3]

    def task_info(self) -> dict[str, Any]:
        """Return success within 4 cm, and 3 cm beside it, from the distance to the goal."""
        distance = float(np.linalg.norm(self.achieved_goal() - self._goal))
        return {
            "is_success": distance <= SUCCESS_M,
            "is_success_3cm": distance <= 0.03,
            "distance_m": distance,
        }

    def compute_reward(self, achieved_goal, desired_goal, info) -> np.ndarray | float:
        """Return 0 within 4 cm of the goal, else -1; goals (..., 3) in metres."""
        achieved = np.asarray(achieved_goal, np.float32)
        distance = np.linalg.norm(achieved - np.asarray(desired_goal, np.float32), axis=-1)
        return -(distance > SUCCESS_M).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """Return the straight move towards the goal, gripper unchanged."""
        action = np.zeros(7, np.float32)
        offset = self._goal - self.arm.state()[:3]
        action[:3] = offset * min(1.0, self.max_move_m / max(1e-9, np.abs(offset).max()))
        return action

    def _clear_of_object(self, goal: np.ndarray) -> bool:
        offset = goal - self.object_position()
        return bool(np.linalg.norm(offset[:2]) > 0.08 or offset[2] > 0.08)
