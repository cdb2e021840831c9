"""The Panda's arm and gripper: blocking end-effector moves, inverse kinematics, the 7-D state.

A move is planned once (damped least squares on the kinematics), then followed in joint space along
a minimum-jerk profile by position servos with velocity feed-forward, so that the arm is at rest at
its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from jepa_gym.envs.physics.scene import (
    ARM_JOINTS,
    FINGER_JOINTS,
    HOME,
    SERVO_DAMPING,
    SERVO_STIFFNESS,
)
from jepa_gym.envs.rotations import euler, matrix

FINGER_TRAVEL_M = 0.04
MOVE_SHARE = 0.6
"""Share of a step's time in which the move is carried out; the arm settles in the rest."""
IK_ITERATIONS = 40
IK_DAMPING = 1e-2
IK_TOLERANCE_M = 2e-4
IK_TOLERANCE_RAD = 1e-3
NULLSPACE_GAIN = 0.05
HAND_M = 0.1
"""Lever by which an error of the hand's turn counts as a distance."""
OUT_OF_REACH_M = 0.01
"""Kinematic error of a pose from which it counts as out of reach."""
BACK_OFF = (0.5, 0.25, 0.0)
"""Shares of a move that are tried when its end is out of reach."""
_DAMPING = IK_DAMPING**2 * np.eye(6)
_HOME = np.array(HOME)


@dataclass(frozen=True)
class ArmNames:
    """What the parts of the arm are called in a scene, and where its base stands there."""

    joints: tuple[str, ...] = ARM_JOINTS
    fingers: tuple[str, ...] = FINGER_JOINTS
    pads: tuple[str, ...] = tuple(f"gripper_finger{i}_pad_collision" for i in (1, 2))
    base_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The base frame's origin; its axes are those of the scene."""


class Arm:
    """Command the arm of one `MjData`, whose first nine actuators are its servos and fingers.

    Args:
        model: The compiled scene.
        data: The simulation that is commanded.
        names: What its parts are called there.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, names: ArmNames | None = None
    ) -> None:
        self.model, self.data = model, data
        names = names or ArmNames()
        self._base = np.array(names.base_m)
        self._site = model.site("grip").id
        self._dofs = np.array([model.joint(name).dofadr[0] for name in names.joints])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in names.joints])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in names.fingers])
        self._range = np.array([model.joint(name).range for name in names.joints])
        self._pads = [model.geom(name).id for name in names.pads]
        self._scratch = mujoco.MjData(model)
        self._jacobian, self._quat = np.zeros((6, model.nv)), np.zeros(4)
        self.closing = 0.0
        """Commanded closedness; stays beyond the measured one while an object is squeezed."""

    def state(self) -> np.ndarray:
        """Return the measured state (7,) float64: x y z (m), roll pitch yaw (rad), closedness."""
        data = self.data
        opening = data.qpos[self._fingers[0]] - data.qpos[self._fingers[1]]
        closedness = min(1.0, max(0.0, 1.0 - opening / (2 * FINGER_TRAVEL_M)))
        position = data.site_xpos[self._site] - self._base
        return np.array([*position, *euler(data.site_xmat[self._site]), closedness])

    def solve(self, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, float]:
        """Return joint angles (7,) for a pose of the hand, and the remaining error in metres.

        The error is that of the grip point, or of a point 10 cm from it if the turn is worse.
        Starts from the present joint angles; a small pull towards `HOME` in the null space keeps
        the elbow in place, so that equal poses get nearly equal arms.

        Args:
            position: (3,) m, base frame.
            rotation: (3, 3) matrix of the hand, base frame.
        """
        scratch, jacobian, turn = self._scratch, self._jacobian, np.zeros(3)
        gram, push = np.zeros((6, 6)), np.zeros(6)
        position = position + self._base
        scratch.qpos[:] = self.data.qpos
        angles = scratch.qpos[self._qpos]
        for iteration in range(IK_ITERATIONS + 1):
            mujoco.mj_kinematics(self.model, scratch)
            mujoco.mj_comPos(self.model, scratch)
            matrix = scratch.site_xmat[self._site].reshape(3, 3)
            mujoco.mju_mat2Quat(self._quat, (rotation @ matrix.T).ravel())
            mujoco.mju_quat2Vel(turn, self._quat, 1.0)
            error = np.concatenate([position - scratch.site_xpos[self._site], turn])
            distance, angle = math.sqrt(error[:3] @ error[:3]), math.sqrt(turn @ turn)
            settled = distance < IK_TOLERANCE_M and angle < IK_TOLERANCE_RAD
            if iteration == IK_ITERATIONS or (settled and iteration >= 3):
                break
            mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], self._site)
            arm = jacobian[:, self._dofs]
            rest = NULLSPACE_GAIN * (_HOME - angles)
            # MuJoCo's own solver: LAPACK's last digits depend on its number of threads
            mujoco.mju_mulMatMatT(gram, arm, arm)
            gram += _DAMPING
            mujoco.mju_cholFactor(gram, 0.0)
            mujoco.mju_cholSolve(push, gram, error - arm @ rest)
            angles = angles + arm.T @ push + rest
            angles = np.minimum(np.maximum(angles, self._range[:, 0]), self._range[:, 1])
            scratch.qpos[self._qpos] = angles
        return angles, max(distance, HAND_M * angle)

    def place(self, position: np.ndarray, rotation: np.ndarray, closedness: float) -> float:
        """Set arm and gripper at a pose without simulating; return the position error in metres."""
        angles, error = self.solve(position, rotation)
        self.data.qpos[self._qpos] = angles
        self.data.qpos[self._fingers] = np.array([1, -1]) * FINGER_TRAVEL_M * (1 - closedness)
        self.data.qvel[:] = 0.0
        self.hold(angles, closedness)
        mujoco.mj_forward(self.model, self.data)
        return error

    def shift(self, position: np.ndarray, rotation: np.ndarray) -> float:
        """Set the arm at a pose, fingers and grip as they are; return the error in metres."""
        angles, error = self.solve(position, rotation)
        self.data.qpos[self._qpos] = angles
        self.data.qvel[:] = 0.0
        self.hold(angles, self.closing)
        return error

    def settle(self, duration_s: float) -> None:
        """Simulate `duration_s` seconds under the present commands."""
        mujoco.mj_step(self.model, self.data, max(1, round(duration_s / self.model.opt.timestep)))
        mujoco.mj_forward(self.model, self.data)

    def hold(self, angles: np.ndarray, closing: float) -> None:
        """Command joint angles (7,) and a closedness to be held at rest."""
        self.data.ctrl[:7] = angles
        self.grip(closing)

    def grip(self, closing: float) -> None:
        """Command a closedness, 0 open to 1 closed, and leave the arm alone."""
        self.closing = float(closing)
        self.data.ctrl[7:9] = np.array([1, -1]) * FINGER_TRAVEL_M * (1 - self.closing)

    def move(self, action: np.ndarray, step_s: float) -> float:
        """Carry out one blocking move of `step_s` seconds; return the kinematic error in metres.

        A move to where the arm does not reach is done as far as it goes, without its turn.

        The gripper's command is the measured closedness plus the change. A move that does not open
        keeps the squeeze on what it holds: closing never lowers the command, and a zero change
        leaves it alone. To squeeze, close further than the object is wide.
        """
        state = self.state()
        change = float(action[6])
        if change < 0:
            self.closing = max(0.0, state[6] + change)
        elif change > 0:
            self.closing = min(1.0, max(self.closing, state[6] + change))
        present = self.data.site_xmat[self._site].reshape(3, 3)
        rotation = matrix(action[3:6]) @ present if np.any(action[3:6]) else present.copy()
        goal, error = self.solve(state[:3] + action[:3], rotation)
        if error > OUT_OF_REACH_M:
            goal = self._nearest(state[:3], action[:3], present.copy())
        self.grip(self.closing)
        start = self.data.ctrl[:7].copy()
        # a new target in every time step: coarser ones jerk the hand and what it holds slips
        steps = max(1, round(step_s / self.model.opt.timestep))
        moving = math.ceil(MOVE_SHARE * steps)
        time = np.minimum(1.0, np.arange(1, moving + 1) / (MOVE_SHARE * steps))
        share = time**3 * (10 - 15 * time + 6 * time**2)
        rate = 30 * time**2 * (1 - time) ** 2 / (MOVE_SHARE * step_s)
        lead = share + SERVO_DAMPING / SERVO_STIFFNESS * rate  # velocity feed-forward
        targets = start + lead[:, None] * (goal - start)
        targets[-1] = goal
        command = self.data.ctrl[:7]
        for target in targets:
            command[:] = target
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_step(self.model, self.data, steps - moving)
        # mj_step leaves positions one step ahead of the poses derived from them
        mujoco.mj_forward(self.model, self.data)
        return error

    def _nearest(self, start: np.ndarray, move: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """Return joint angles (7,) for the longest tried share of a move that can be reached."""
        for share in BACK_OFF:
            angles, error = self.solve(start + share * move, rotation)
            if error <= OUT_OF_REACH_M:
                return angles
        return self.data.qpos[self._qpos].copy()

    def touched_bodies(self) -> tuple[set[int], set[int]]:
        """Return the bodies that each of the two finger pads touches, the world apart."""
        touched: tuple[set[int], set[int]] = (set(), set())
        # the pairs as one array: building MuJoCo's contact objects takes 50 times as long
        for pair in self.data.contact.geom[: self.data.ncon].tolist():
            for geom, other in (pair, pair[::-1]):
                if geom in self._pads and other not in self._pads:
                    touched[self._pads.index(geom)].add(int(self.model.geom_bodyid[other]))
        return touched[0] - {0}, touched[1] - {0}
