"""The Panda's arm and gripper: blocking end-effector moves, inverse kinematics, the 7-D state.

A move is planned once (damped least squares on the kinematics), then followed in joint space along
a minimum-jerk profile by position servos with velocity feed-forward, so that the arm is at rest at
its end.
"""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from jepa_gym.envs.scene import ARM_JOINTS, FINGER_JOINTS, HOME, SERVO_DAMPING, SERVO_STIFFNESS

FINGER_TRAVEL_M = 0.04
MOVE_SHARE = 0.6
"""Share of a step's time in which the move is carried out; the arm settles in the rest."""
CONTROL_UPDATES = 20
IK_ITERATIONS = 40
IK_DAMPING = 1e-2
IK_TOLERANCE_M = 2e-4
NULLSPACE_GAIN = 0.05


class Arm:
    """Command the arm of one `MjData`.

    Args:
        model: the compiled scene.
        data: the simulation that is commanded.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        self._site = model.site("grip").id
        self._dofs = np.array([model.joint(name).dofadr[0] for name in ARM_JOINTS])
        self._qpos = np.array([model.joint(name).qposadr[0] for name in ARM_JOINTS])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in FINGER_JOINTS])
        self._range = np.array([model.joint(name).range for name in ARM_JOINTS])
        self._pads = [model.geom(f"gripper_finger{i}_pad_collision").id for i in (1, 2)]
        self._scratch = mujoco.MjData(model)
        self.closing = 0.0
        """Commanded closedness; stays beyond the measured one while an object is squeezed."""

    def state(self) -> np.ndarray:
        """Return the measured state (7,) float64: x y z (m), roll pitch yaw (rad), closedness."""
        return self._state_of(self.data)

    def _state_of(self, data: mujoco.MjData) -> np.ndarray:
        euler = Rotation.from_matrix(data.site_xmat[self._site].reshape(3, 3)).as_euler("xyz")
        opening = data.qpos[self._fingers[0]] - data.qpos[self._fingers[1]]
        closedness = np.clip(1.0 - opening / (2 * FINGER_TRAVEL_M), 0.0, 1.0)
        return np.concatenate([data.site_xpos[self._site], euler, [closedness]])

    def solve(self, position: np.ndarray, rotation: Rotation) -> tuple[np.ndarray, float]:
        """Return joint angles (7,) for a pose of the hand, and the remaining error in metres.

        Starts from the present joint angles; a small pull towards `HOME` in the null space keeps
        the elbow in place, so that equal poses get nearly equal arms.
        """
        scratch, jacobian = self._scratch, np.zeros((6, self.model.nv))
        scratch.qpos[:] = self.data.qpos
        target = rotation.as_matrix()
        for iteration in range(IK_ITERATIONS + 1):
            mujoco.mj_kinematics(self.model, scratch)
            mujoco.mj_comPos(self.model, scratch)
            matrix = scratch.site_xmat[self._site].reshape(3, 3)
            turn = Rotation.from_matrix(target @ matrix.T).as_rotvec()
            error = np.concatenate([position - scratch.site_xpos[self._site], turn])
            distance = float(np.linalg.norm(error[:3]))
            settled = distance < IK_TOLERANCE_M and np.linalg.norm(turn) < 1e-3
            if iteration == IK_ITERATIONS or (settled and iteration >= 3):
                break
            mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], self._site)
            arm = jacobian[:, self._dofs]
            inverse = arm.T @ np.linalg.inv(arm @ arm.T + IK_DAMPING**2 * np.eye(6))
            angles = scratch.qpos[self._qpos]
            rest = NULLSPACE_GAIN * (np.asarray(HOME) - angles)
            angles = angles + inverse @ error + rest - inverse @ (arm @ rest)
            scratch.qpos[self._qpos] = np.clip(angles, self._range[:, 0], self._range[:, 1])
        return scratch.qpos[self._qpos].copy(), distance

    def place(self, position: np.ndarray, rotation: Rotation, closedness: float) -> float:
        """Set arm and gripper at a pose without simulating; return the position error in metres."""
        angles, error = self.solve(position, rotation)
        self.data.qpos[self._qpos] = angles
        self.data.qpos[self._fingers] = np.array([1, -1]) * FINGER_TRAVEL_M * (1 - closedness)
        self.data.qvel[:] = 0.0
        self.hold(angles, closedness)
        mujoco.mj_forward(self.model, self.data)
        return error

    def hold(self, angles: np.ndarray, closing: float) -> None:
        """Command joint angles (7,) and a closedness to be held at rest."""
        self.closing = float(closing)
        self.data.ctrl[:7] = angles
        self.data.ctrl[7:9] = np.array([1, -1]) * FINGER_TRAVEL_M * (1 - self.closing)

    def move(self, action: np.ndarray, step_s: float) -> float:
        """Carry out one blocking move of `step_s` seconds; return the kinematic error in metres.

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
        rotation = Rotation.from_euler("xyz", action[3:6]) * Rotation.from_euler("xyz", state[3:6])
        goal, error = self.solve(state[:3] + action[:3], rotation)
        start = self.data.ctrl[:7].copy()
        substeps = max(1, round(step_s / self.model.opt.timestep / CONTROL_UPDATES))
        fingers = np.array([1, -1]) * FINGER_TRAVEL_M * (1 - self.closing)
        for update in range(CONTROL_UPDATES):
            time = min(1.0, (update + 1) / (MOVE_SHARE * CONTROL_UPDATES))
            share = time**3 * (10 - 15 * time + 6 * time**2)
            rate = 30 * time**2 * (1 - time) ** 2 / (MOVE_SHARE * step_s)
            feed_forward = SERVO_DAMPING / SERVO_STIFFNESS * rate
            self.data.ctrl[:7] = start + (goal - start) * (share + feed_forward)
            self.data.ctrl[7:9] = fingers
            mujoco.mj_step(self.model, self.data, substeps)
        # mj_step leaves positions one step ahead of the poses derived from them
        mujoco.mj_forward(self.model, self.data)
        return error

    def gripped_body(self) -> int | None:
        """Return the body that both finger pads touch, the table and the fingers apart, or None."""
        touched: tuple[set[int], set[int]] = (set(), set())
        for contact in self.data.contact[: self.data.ncon]:
            for geom, other in ((contact.geom1, contact.geom2), (contact.geom2, contact.geom1)):
                if geom in self._pads and other not in self._pads:
                    touched[self._pads.index(geom)].add(int(self.model.geom_bodyid[other]))
        both = (touched[0] & touched[1]) - {0}
        return min(both) if both else None
