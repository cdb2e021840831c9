"""What the tasks with an object in the hand share: grasps, carrying, what can go wrong."""

from __future__ import annotations

import mujoco
import numpy as np

from jepa_gym.envs.rotations import matrix
from jepa_gym.envs.tasks.base import FrankaEnv
from jepa_gym.envs.tasks.episode import GoalError

HOVER_M = 0.08
GRIP_S = 0.25
"""Simulated time that the fingers get to close on the object or to let go of it."""
SETTLE_S = 0.1
"""Simulated time after the arm was put elsewhere with the object in its hand."""
UPRIGHT_COSINE = 0.9
"""Cosine of the tilt (26 degrees) from which an object counts as toppled."""
REST_M_S, REST_RAD_S = 0.03, 0.5
NEAR_M, FAR_M = 0.25, 0.80
"""Horizontal distances from the robot's base between which an object can be grasped."""


class ObjectTaskEnv(FrankaEnv):
    """A task that is about the object; see `FrankaEnv`."""

    at_object_m = 0.006
    """How far from the point of the grasp the expert closes the gripper."""
    aligned_m = 0.008
    """How far from the middle the expert descends: wide objects leave the fingers 1 cm on each
    side."""

    # ---- reading the simulator

    def achieved_goal(self) -> np.ndarray:
        """Return the object's centre (3,) in metres."""
        return self.object_position()

    def grasp_point(self) -> np.ndarray:
        """Return the hand position (3,) in metres from which the object is grasped."""
        height = self.object_spec.grasp_height_m * self.variation.object_scale
        return self.object_position() + [0, 0, height]

    def object_upright(self) -> bool:
        """Return whether the object stands on its foot, or need not."""
        return not self.object_spec.upright or self.stage.object_tilt_cosine() >= UPRIGHT_COSINE

    def object_at_rest(self) -> bool:
        """Return whether the object moves slower than 3 cm/s and turns slower than 0.5 rad/s."""
        speed, turning = self.stage.object_velocity()
        return speed <= REST_M_S and turning <= REST_RAD_S

    def object_out_of_reach(self) -> bool:
        """Return whether the object fell off the table or lies where the arm cannot grasp it."""
        position = self.object_position()
        return bool(position[2] < -0.02 or not NEAR_M <= np.linalg.norm(position[:2]) <= FAR_M)

    def not_held_failure(self) -> str:
        """Return why the object is not in the hand."""
        if self.object_out_of_reach():
            return "out of reach"
        if not self.object_upright():
            return "toppled"
        return "dropped" if self.held_once else "not grasped"

    # ---- demonstrations

    def simulate_grasp(self) -> None:
        """Put the open hand at the grasp point and let the simulator close it on the object.

        Raises:
            GoalError: The fingers do not hold the object afterwards.
        """
        self.place_arm(self.grasp_point())
        self.arm.grip(1.0)
        self.arm.settle(GRIP_S)
        if not self.object_held():
            raise GoalError(
                f"The simulated grasp of {self.obj!r} failed; check the object's `grasp_height_m`, "
                "size and friction in envs/physics/objects.py"
            )

    def carry(self, position: np.ndarray, yaw: float = 0.0) -> None:
        """Put the hand at `position` (3,) m, turned by `yaw` rad, with the object in it.

        The object keeps its place in the hand, and both settle.

        Raises:
            GoalError: The arm cannot reach the position.
        """
        data = self.data
        hand = data.site("grip")
        before = hand.xmat.reshape(3, 3)
        offset = before.T @ (self.object_position() - hand.xpos)
        turn = before.T @ data.xmat[self.stage.object_body].reshape(3, 3)
        error = self.arm.shift(position, matrix(np.array([0.0, 0.0, yaw])))
        if error > 2e-3:
            raise GoalError(f"The arm cannot carry the object to {np.round(position, 3)} m")
        mujoco.mj_kinematics(self.model, data)
        after = hand.xmat.reshape(3, 3)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, (after @ turn).ravel())
        self.stage.place_object(hand.xpos + after @ offset, quat)
        self.arm.settle(SETTLE_S)

    # ---- the expert

    def grasp_move(self) -> np.ndarray:
        """Return the next move of: approach from above, descend, close."""
        state, grasp = self.arm.state(), self.grasp_point()
        offset = grasp - state[:3]
        at_object = np.linalg.norm(offset) < self.at_object_m
        if at_object and state[6] > 0.15:
            return self.move_by(np.zeros(3), closing=1.0)
        closing = 1.0 if at_object else -state[6] if state[6] > 0.1 else 0.0
        if np.linalg.norm(offset[:2]) > self.aligned_m:
            offset[2] += HOVER_M + 0.01  # sideways only above the object
        return self.move_by(offset, closing)
