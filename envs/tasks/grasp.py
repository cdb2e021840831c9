"""`FrankaGrasp-v0`: grasp the object and lift it, as the sub-goal images show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jepa_gym.envs.tasks.manipulation import HOVER_M, ObjectTaskEnv
from jepa_gym.envs.tasks.options import START_DISTANCE
from jepa_gym.envs.tasks.sampling import sample_hand_position, sample_object_place, within

LIFT_M = 0.04
"""Height clear of the table from which the object counts as lifted."""
GOAL_LIFT_M = 0.12
RANDOM_LIFT_M = ((-0.05, -0.05, 0.06), (0.05, 0.05, 0.16))
"""Bounds of the hand's offset from the grasp point in random goals."""


class FrankaGraspEnv(ObjectTaskEnv):
    """Grasp: success if both fingers hold the object at least 4 cm clear of the table, at the end.

    `achieved_goal` is the object's centre, `desired_goal` the lowest centre that counts as lifted,
    so the reward reads heights alone; `info["is_success"]` also asks that both fingers hold the
    object. The goal image shows the object lifted 12 cm after a simulated grasp. The suite's own
    protocol shows four: hand 8 cm above the grasp point (4 steps; a straight way to the object
    would knock it over), at the object (2 steps), closed on it (2 steps), lifted (until the end).
    The further reset option is `start_distance_m` (least, largest), how far the hand starts from
    the grasp point. See `FrankaEnv` for spaces and arguments; horizon 12 steps.
    """

    OPTIONS = (START_DISTANCE,)

    SCHEDULE = {"above": 4, "at the object": 2, "closed": 2, "lifted": 0}

    def sample_task(self) -> None:
        """Draw the object's place and a start of the hand above it, up to 15 cm to the side."""
        self.place_object(*sample_object_place(self))
        start = self.chosen(
            "start_position", lambda: sample_hand_position(self, low_z_m=0.14), self._fits
        )
        self.place_arm(start, yaw=self.variation.start_yaw_rad)

    def _fits(self, start: np.ndarray) -> bool:
        if START_DISTANCE in self.options:
            return within(self.options[START_DISTANCE], start, self.grasp_point())
        aside = np.linalg.norm((start - self.object_position())[:2])
        return bool(aside < 0.15 and start[2] < 0.28)

    def make_goal(self) -> Iterator[str]:
        """Simulate a grasp and lift the object; random goals also carry it a little."""
        lift = np.array([0, 0, GOAL_LIFT_M])
        if self.goal_source == "random":
            lift = self.np_random.uniform(*RANDOM_LIFT_M)
        else:
            self.place_arm(self.grasp_point() + [0, 0, HOVER_M])
            yield "above"
            self.place_arm(self.grasp_point())
            yield "at the object"
        self.simulate_grasp()
        yield "closed"
        self.carry(self.arm.state()[:3] + lift)
        yield "lifted"

    def desired_goal(self) -> np.ndarray:
        """Return the lowest centre (3,) of the object that counts as lifted, metres."""
        return self.object_start + [0, 0, LIFT_M]

    def task_info(self) -> dict[str, Any]:
        """Return success (held and lifted) and how many metres of the lift are missing."""
        clearance, held = self.object_clearance(), self.object_held()
        success = bool(held and clearance >= LIFT_M)
        failure = "not reached" if held else self.not_held_failure()
        return {
            "is_success": success,
            "failure": None if success else failure,
            "is_held": held,
            "clearance_m": clearance,
            "distance_m": max(0.0, LIFT_M - clearance) if held else LIFT_M,
        }

    def compute_reward(self, achieved_goal, desired_goal, info) -> np.ndarray | float:
        """Return 0 where the object is as high as the goal, else -1; goals (..., 3) in metres."""
        height = np.asarray(achieved_goal, np.float32)[..., 2]
        return -(height < np.asarray(desired_goal, np.float32)[..., 2]).astype(np.float32)

    def expert_move(self) -> np.ndarray:
        """Return the next move of: approach from above, descend, close, lift."""
        if not self.object_held():
            return self.grasp_move()
        missing = self.object_start[2] + GOAL_LIFT_M - self.object_position()[2]
        return self.move_by(np.array([0, 0, missing]))
