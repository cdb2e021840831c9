"""`FrankaGrasp-v0`: grasp the object and lift it, as the sub-goal images show."""

from __future__ import annotations

from typing import Any

import numpy as np

from jepa_gym.envs.base import FrankaEnv, SubGoal
from jepa_gym.envs.sampling import sample_hand_position, sample_object_place

LIFT_M = 0.04
"""Height clear of the table from which the object counts as lifted."""
GOAL_LIFT_M = 0.12
HOVER_M = 0.08
SUBGOAL_STEPS = (4, 2, 2, 0)
"""Steps for which each sub-goal image is shown: hand above the object, at it, closed, lifted (to
the end)."""


class FrankaGraspEnv(FrankaEnv):
    """Grasp: success if both fingers hold the object at least 4 cm clear of the table, at the end.

    `achieved_goal` is the object's centre, `desired_goal` the lowest centre that counts as lifted,
    so the reward reads heights alone; `info["is_success"]` also asks that both fingers hold the
    object. The goal images come from a simulated grasp: hand 8 cm above the grasp point (4 steps; a
    straight way to the object would knock it over), at the object (2 steps), closed on it (2
    steps), lifted 12 cm (until the end). See `FrankaEnv` for spaces and arguments; horizon 12
    steps.
    """

    def sample_task(self) -> None:
        """Draw the object's place and a start of the hand above it, up to 15 cm to the side."""
        self.place_object(*sample_object_place(self))
        while True:
            start = sample_hand_position(self, low_z_m=0.14)
            if np.linalg.norm((start - self.object_position())[:2]) < 0.15 and start[2] < 0.28:
                break
        self.place_arm(start)
        self._rest = self.object_position()

    def grasp_point(self) -> np.ndarray:
        """Return the hand position (3,) in metres from which the object is grasped."""
        return self.object_position() + [0, 0, self.object_spec.grasp_height_m]

    def make_goal(self) -> tuple[np.ndarray, list[SubGoal]]:
        """Simulate a grasp and a lift, and keep the four sub-goals on the way.

        Raises:
            RuntimeError: the simulated grasp failed, so there is no physically consistent goal.
        """
        self.place_arm(self.grasp_point() + [0, 0, HOVER_M])
        subgoals = [self.subgoal_now(SUBGOAL_STEPS[0])]
        self.place_arm(self.grasp_point())
        subgoals.append(self.subgoal_now(SUBGOAL_STEPS[1]))
        close, lift = np.zeros(7), np.zeros(7)
        close[6], lift[2] = 1.0, GOAL_LIFT_M / 2
        self.arm.move(close, self.step_s)
        self.arm.move(close, self.step_s)
        subgoals.append(self.subgoal_now(SUBGOAL_STEPS[2]))
        self.arm.move(lift, self.step_s)
        self.arm.move(lift, self.step_s)
        subgoals.append(self.subgoal_now(SUBGOAL_STEPS[3]))
        if not (self.object_held() and self.object_clearance() >= LIFT_M):
            raise RuntimeError(
                f"The simulated grasp of {self.obj!r} failed, so no goal image can be made; check "
                "the object's `grasp_height_m`, size and friction in envs/objects.py"
            )
        return (self._rest + [0, 0, LIFT_M]).astype(np.float32), subgoals

    def achieved_goal(self) -> np.ndarray:
        """Return the object's centre (3,) in metres."""
        return self.object_position()

    def task_info(self) -> dict[str, Any]:
        """Return success (held and lifted) and how many metres of the lift are missing."""
        clearance, held = self.object_clearance(), self.object_held()
        return {
            "is_success": bool(held and clearance >= LIFT_M),
            "is_held": held,
            "clearance_m": clearance,
            "distance_m": max(0.0, LIFT_M - clearance) if held else LIFT_M,
        }

    def compute_reward(self, achieved_goal, desired_goal, info) -> np.ndarray | float:
        """Return 0 where the object is as high as the goal, else -1; goals (..., 3) in metres."""
        height = np.asarray(achieved_goal, np.float32)[..., 2]
        return -(height < np.asarray(desired_goal, np.float32)[..., 2]).astype(np.float32)

    def expert_action(self) -> np.ndarray:
        """Return the next move of: approach from above, descend, close, lift."""
        action = np.zeros(7, np.float32)
        state, grasp = self.arm.state(), self.grasp_point()
        offset = grasp - state[:3]
        at_object = np.linalg.norm(offset) < 0.015
        if self.object_held() or (at_object and state[6] > 0.15):
            missing = self._rest[2] + GOAL_LIFT_M - self.object_position()[2]
            action[2] = np.clip(missing, -self.max_move_m, self.max_move_m)
            action[6] = 0.0 if self.object_held() else 1.0
            return action
        if state[6] > 0.1:
            action[6] = -state[6]
        elif at_object:
            action[6] = 1.0
        if np.linalg.norm(offset[:2]) > 0.02 and state[2] < grasp[2] + 0.09:
            offset[2] = max(0.0, grasp[2] + 0.09 - state[2])
        action[:3] = offset * min(1.0, self.max_move_m / max(1e-9, np.abs(offset).max()))
        return action
