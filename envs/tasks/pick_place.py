"""`FrankaPickPlace-v0`: grasp the object, carry it to its place, let go of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jepa_gym.envs.tasks.episode import SUCCESS_M
from jepa_gym.envs.tasks.manipulation import GRIP_S, HOVER_M, ObjectTaskEnv
from jepa_gym.envs.tasks.sampling import (
    OBJECT_HIGH_M,
    OBJECT_LOW_M,
    sample_object_place,
    within,
)

DISTANCE_M = (0.12, 0.26)
"""Range of the distance between the object's place and its goal."""
START_OFFSET_M = ((-0.04, -0.04, 0.08), (0.04, 0.04, 0.14))
"""Bounds of the hand's start relative to the grasp point: within four steps of a grasp."""
PLACE_GAP_M = 0.001
CARRY_CLEARANCE_M = 0.06
LOWERED_M = 0.004
"""Clearance at which the expert lets go."""


class FrankaPickPlaceEnv(ObjectTaskEnv):
    """Pick and place: success if the object rests upright, released, within 4 cm of the goal.

    Strictly, and at the end: centre within 4 cm, touched by no finger pad, slower than 3 cm/s, and
    not toppled if it is an object that can topple. Sub-goal images as published (V-JEPA 2, section
    4.2): grasped (4 steps), near the target, 8 cm above it (10 steps), placed with the hand open
    around it (4 steps). The hand starts 8 to 14 cm above the grasp point. `achieved_goal` is the
    object's centre, `desired_goal` its place; the reward reads positions alone. The further reset
    option is `goal_place` (2,) m. See `FrankaEnv` for spaces and arguments; horizon 18 steps.
    """

    SCHEDULE = PUBLISHED = {"grasped": 4, "near": 10, "placed": 4}
    OPTIONS = ("goal_place",)

    def sample_task(self) -> None:
        """Draw the object's place, its goal 12 to 26 cm away, and the hand's start above it."""
        self.place_object(*sample_object_place(self))
        place = self.object_position()[:2]
        self._target = self.chosen(
            "goal_place",
            lambda: self.np_random.uniform(OBJECT_LOW_M, OBJECT_HIGH_M),
            lambda goal: within(DISTANCE_M, goal, place),
        )
        start = self.chosen(
            "start_position", lambda: self.grasp_point() + self.np_random.uniform(*START_OFFSET_M)
        )
        self.place_arm(start, yaw=self.variation.start_yaw_rad)

    def make_goal(self) -> Iterator[str]:
        """Simulate the grasp, the way and the release; after it, random goals move the hand."""
        self.simulate_grasp()
        yield "grasped"
        if self.goal_source == "expert":
            self.carry(self._hand_at_target() + [0, 0, HOVER_M])
            yield "near"
        self.carry(self._hand_at_target())
        self.arm.grip(0.0)
        self.arm.settle(GRIP_S)
        if self.goal_source == "random":
            self.place_arm(self.arm.state()[:3] + self.np_random.uniform(*START_OFFSET_M))
        yield "placed"

    def task_info(self) -> dict[str, Any]:
        """Return success (near, released, at rest, upright) and the distance to the goal."""
        distance = float(np.linalg.norm(self.object_position() - self._goal))
        held, failure = self.object_held(), self._failure(distance)
        return {
            "is_success": failure is None,
            "failure": failure,
            "is_held": held,
            "distance_m": distance,
        }

    def expert_move(self) -> np.ndarray:
        """Return the next move of: grasp, lift, carry, lower, let go, rise."""
        offset = self.goal_position() - self.object_position()
        clearance = self.object_clearance()
        near = np.linalg.norm(offset[:2]) < 0.01
        if self.object_held():
            if not near:
                offset[2] = CARRY_CLEARANCE_M - clearance
                if clearance < LOWERED_M:
                    offset[:2] = 0.0  # straight up first
                return self.move_by(offset)
            if clearance > LOWERED_M:
                return self.move_by(np.array([*offset[:2], -clearance + PLACE_GAP_M]))
            return self.move_by(np.zeros(3), closing=-1.0)
        if np.linalg.norm(offset[:2]) < 0.025 and clearance < 0.01:
            rise = self.grasp_point()[2] + HOVER_M - self.arm.state()[2]
            opening = -1.0 if self.arm.state()[6] > 0.1 else 0.0
            return self.move_by(np.array([0, 0, 0.0 if opening else max(0.0, rise)]), opening)
        return self.grasp_move()

    def _hand_at_target(self) -> np.ndarray:
        """Return where (3,) m the hand is when the object it holds stands on its place."""
        place = np.array([*self._target, self.object_half_height() + PLACE_GAP_M])
        return self.arm.state()[:3] + place - self.object_position()

    def _failure(self, distance: float) -> str | None:
        if self.object_out_of_reach():
            return "out of reach"
        near, released = distance <= SUCCESS_M, self.stage.object_released()
        if not released:
            return (
                "not released" if near else "not reached" if self.object_held() else "not grasped"
            )
        if not self.object_upright():
            return "toppled"
        if near:
            return None if self.object_at_rest() else "dropped"
        return "dropped" if self.held_once else "not grasped"
