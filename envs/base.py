"""`FrankaEnv`: what all tasks share. A task is a subclass with six hooks (see CONTRIBUTING)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from scipy.spatial.transform import Rotation

from jepa_gym.envs.arm import Arm
from jepa_gym.envs.objects import object_spec
from jepa_gym.envs.rendering import FrameRenderer, parse_cameras
from jepa_gym.envs.scene import HOME, scene_model

WORKSPACE_LOW_M = np.array([0.34, -0.20, 0.02])
WORKSPACE_HIGH_M = np.array([0.64, 0.20, 0.34])
"""Where starts and goals are drawn and where the cameras keep the hand in view, base frame."""
MAX_TURN_RAD = 0.3
REACH_M = 2.0
"""Bound of every position in the observation space; the arm reaches 0.86 m."""
OBS_MODES = ("both", "pixels", "state")
_STATE_KIND = mujoco.mjtState.mjSTATE_INTEGRATION


@dataclass(frozen=True)
class SubGoal:
    """A goal image and the state (7,) it shows, active for `steps` steps (0: until the end)."""

    state: np.ndarray
    pixels: np.ndarray | None
    steps: int


class FrankaEnv(gym.Env, EzPickle):
    """A Franka Panda at a table with one object: image goals, strict success, blocking moves.

    ## Action space
    `Box(7,)` float32, physical units: dx dy dz (m, base frame, +-`max_move_m`), rotation in the
    base frame as extrinsic xyz Euler angles (rad, +-0.3), change of the gripper's closedness (+-1).
    One step carries the move out and takes `step_s` seconds of simulated time.

    ## Observation space
    `Dict`: `observation` (7,) float32 state (x y z in m, roll pitch yaw in rad, closedness 0 open
    to 1 closed), `achieved_goal` and `desired_goal` (3,) float32 task positions in m. Unless
    `obs_mode="state"`, also `pixels` and `goal_pixels` (Y, X, 3) uint8 RGB, upright, and
    `goal_state` (7,) float32: picture and state of the sub-goal that is active now.

    ## Reward
    0 if the task is achieved, else -1 (`compute_reward`, vectorised). Success never terminates: it
    must hold at the end. The horizon is a truncation.

    Args:
        obj: object of the catalogue, `"box"` or `"cup"`.
        obs_mode: `"both"`, `"pixels"` (the same keys) or `"state"` (nothing is rendered).
        camera: `"left"`, `"wrist"`, or several joined by `+` and tiled from left to right.
        image_size: height and width in pixels of one camera's picture.
        step_s: simulated seconds of one step.
        max_move_m: largest move per axis and step.
        clip_actions: clip actions to the bounds instead of raising.
        render_mode: None or `"rgb_array"`.

    Raises:
        ValueError: an argument outside the allowed values, which the message names.
        RuntimeError: no OpenGL library is usable; the message names the packages.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        obj: str = "box",
        obs_mode: str = "both",
        camera: str = "left+wrist",
        image_size: int = 128,
        step_s: float = 0.25,
        max_move_m: float = 0.075,
        clip_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(
            self, obj, obs_mode, camera, image_size, step_s, max_move_m, clip_actions, render_mode
        )
        if obs_mode not in OBS_MODES:
            raise ValueError(f"`obs_mode` must be one of {OBS_MODES}, got {obs_mode!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'`render_mode` must be None or "rgb_array", got {render_mode!r}')
        if not 0.05 <= step_s <= 5.0:
            raise ValueError(f"`step_s` must be in [0.05, 5] seconds, got {step_s!r}")
        if not 0.005 <= max_move_m <= 0.2:
            raise ValueError(f"`max_move_m` must be in [0.005, 0.2] metres, got {max_move_m!r}")
        self.obj, self.object_spec = obj, object_spec(obj)
        self.obs_mode, self.step_s, self.max_move_m = obs_mode, float(step_s), float(max_move_m)
        self.clip_actions, self.render_mode = clip_actions, render_mode
        self.cameras, self.image_size = parse_cameras(camera), image_size
        self.model = scene_model(obj)
        self.data = mujoco.MjData(self.model)
        self.arm = Arm(self.model, self.data)
        self._object_qpos = self.model.joint("object").qposadr[0]
        self._object_body = self.model.body("object").id
        self._frames = FrameRenderer(self.model, self.cameras, image_size) if self.renders else None
        self.action_space = spaces.Box(*self._action_bounds())
        self.observation_space = spaces.Dict(self._observation_spaces())
        self.subgoals: list[SubGoal] = []
        self._goal = np.zeros(3, np.float32)
        self._steps = 0

    # ---- hooks of a task

    def sample_task(self) -> None:
        """Place object and arm for a new episode, drawing from `self.np_random`."""
        raise NotImplementedError

    def make_goal(self) -> tuple[np.ndarray, list[SubGoal]]:
        """Return `desired_goal` (3,) and the sub-goals; the simulation is restored afterwards."""
        raise NotImplementedError

    def achieved_goal(self) -> np.ndarray:
        """Return the task position (3,) in metres that has been achieved now."""
        raise NotImplementedError

    def task_info(self) -> dict[str, Any]:
        """Return `is_success` (bool) and `distance_m` (float) of the present state."""
        raise NotImplementedError

    def compute_reward(self, achieved_goal, desired_goal, info) -> np.ndarray | float:
        """Return 0 where achieved, else -1, for goals (..., 3) in metres; pure and vectorised."""
        raise NotImplementedError

    def expert_action(self) -> np.ndarray:
        """Return the scripted expert's action (7,) float32; reads privileged simulator state."""
        raise NotImplementedError

    # ---- Gymnasium

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode; `seed` decides everything that follows. No `options` are known yet."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"`options` must be empty, got the keys {sorted(options)}")
        self._steps = 0
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:7] = HOME
        self.sample_task()
        start = self.get_state()
        self._goal, self.subgoals = self.make_goal()
        goals = (self._goal, self.subgoals)
        self.set_state(start)
        self._goal, self.subgoals = goals
        return self._observation(), self._info(self.achieved_goal())

    def step(self, action: np.ndarray):
        """Carry out one blocking move.

        Raises:
            ValueError: `action` has a wrong shape, is not finite or out of bounds.
        """
        if not self.subgoals:
            raise gym.error.ResetNeeded("Call `reset()` before `step()`.")
        error = self.arm.move(self._checked_action(action), self.step_s)
        self._steps += 1
        achieved = self.achieved_goal()
        info = self._info(achieved)
        info["ik_error_m"] = error
        reward = float(self.compute_reward(achieved, self._goal, info))
        info["reward_sparse"] = reward
        return self._observation(), reward, False, False, info

    def render(self) -> np.ndarray | None:
        """Return the present frame (Y, X, 3) uint8 if made with `render_mode="rgb_array"`."""
        return self.frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None

    # ---- beyond Gymnasium

    @property
    def renders(self) -> bool:
        """Whether this environment needs pictures at all."""
        return self.obs_mode != "state" or self.render_mode is not None

    def frame(self) -> np.ndarray:
        """Return a new picture of the present state, (Y, X, 3) uint8."""
        if self._frames is None:
            raise RuntimeError(
                "This environment has no renderer: it was closed, or made with "
                'obs_mode="state" and no render_mode.'
            )
        return self._frames.render(self.data)

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future; give it back to `set_state` to branch."""
        physics = np.zeros(mujoco.mj_stateSize(self.model, _STATE_KIND))
        mujoco.mj_getState(self.model, self.data, physics, _STATE_KIND)
        return {
            "physics": physics,
            "closing": self.arm.closing,
            "steps": self._steps,
            "goal": self._goal.copy(),
            "subgoals": list(self.subgoals),
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore simulator, controller, goal and random generator from `get_state`."""
        mujoco.mj_setState(self.model, self.data, state["physics"], _STATE_KIND)
        mujoco.mj_forward(self.model, self.data)
        # the solver's warm start is part of the state, and mj_forward has just changed it
        mujoco.mj_setState(self.model, self.data, state["physics"], _STATE_KIND)
        self.arm.closing = state["closing"]
        self._steps = state["steps"]
        self._goal = state["goal"].copy()
        self.subgoals = list(state["subgoals"])
        self.np_random.bit_generator.state = state["rng"]

    def object_position(self) -> np.ndarray:
        """Return the object's centre (3,) in metres, base frame."""
        return self.data.xpos[self._object_body].copy()

    def object_held(self) -> bool:
        """Return whether both finger pads touch the object."""
        return self.arm.gripped_body() == self._object_body

    def object_clearance(self) -> float:
        """Return the height in metres of the object's lowest point above the table."""
        lowest = np.inf
        for geom in range(self.model.ngeom):
            if self.model.geom_bodyid[geom] == self._object_body:
                rotation = self.data.geom_xmat[geom].reshape(3, 3)
                extent = self.model.geom_aabb[geom, 3:]
                lowest = min(lowest, self.data.geom_xpos[geom, 2] - np.abs(rotation[2]) @ extent)
        return float(lowest)

    def place_object(self, position: np.ndarray, yaw: float) -> None:
        """Put the object at `position` (3,) in metres, turned by `yaw` rad, without simulating."""
        start = self._object_qpos
        self.data.qpos[start : start + 3] = position
        self.data.qpos[start + 3 : start + 7] = [np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
        mujoco.mj_forward(self.model, self.data)

    def place_arm(self, position: np.ndarray, closedness: float = 0.0, yaw: float = 0.0) -> None:
        """Put the hand at `position` (3,), pointing down; RuntimeError where it cannot reach."""
        error = self.arm.place(position, Rotation.from_euler("z", yaw), closedness)
        if error > 2e-3:
            raise RuntimeError(
                f"The arm cannot reach {np.round(position, 3)}: inverse kinematics ends "
                f"{error * 100:.1f} cm away. Choose a point inside the workspace "
                f"{WORKSPACE_LOW_M} to {WORKSPACE_HIGH_M} m."
            )

    def subgoal_now(self, steps: int = 0) -> SubGoal:
        """Return a sub-goal that shows the present state."""
        pixels = self.frame() if self.obs_mode != "state" else None
        return SubGoal(self.arm.state().astype(np.float32), pixels, steps)

    # ---- internals

    def _active_subgoal(self) -> int:
        spent = 0
        for index, subgoal in enumerate(self.subgoals):
            spent += subgoal.steps
            if subgoal.steps == 0 or self._steps < spent:
                return index
        return len(self.subgoals) - 1

    def _action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        high = np.array([self.max_move_m] * 3 + [MAX_TURN_RAD] * 3 + [1.0], np.float32)
        return -high, high

    def _observation_spaces(self) -> dict[str, spaces.Space]:
        state_high = np.array([REACH_M] * 3 + [np.pi] * 3 + [1.0], np.float32)
        state_low = -state_high * [1, 1, 1, 1, 1, 1, 0]
        state = spaces.Box(state_low.astype(np.float32), state_high, dtype=np.float32)
        place = spaces.Box(-REACH_M, REACH_M, (3,), np.float32)
        found: dict[str, spaces.Space] = {
            "observation": state,
            "achieved_goal": place,
            "desired_goal": place,
        }
        if self.obs_mode != "state":
            found["goal_state"] = state
            frame = (self.image_size, self.image_size * len(self.cameras), 3)
            for key in ("pixels", "goal_pixels"):
                found[key] = spaces.Box(0, 255, frame, np.uint8)
        return found

    def _observation(self) -> dict[str, np.ndarray]:
        observation = {
            "observation": self.arm.state().astype(np.float32),
            "achieved_goal": self.achieved_goal().astype(np.float32),
            "desired_goal": self._goal.copy(),
        }
        if self.obs_mode != "state":
            subgoal = self.subgoals[self._active_subgoal()]
            observation["goal_state"] = subgoal.state.copy()
            observation["pixels"] = self.frame()
            observation["goal_pixels"] = subgoal.pixels.copy()
        return observation

    def _info(self, achieved: np.ndarray) -> dict[str, Any]:
        info = self.task_info()
        info["success"] = info["is_success"]
        info["subgoal"] = self._active_subgoal()
        info["elapsed_s"] = self._steps * self.step_s
        return info

    def _checked_action(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (7,):
            raise ValueError(
                "`action` must have shape (7,): dx dy dz (m), three Euler angles (rad), "
                f"change of closedness; got shape {action.shape}"
            )
        if not np.isfinite(action).all():
            raise ValueError(f"`action` must be finite, got {action}")
        low, high = self.action_space.low, self.action_space.high
        if self.clip_actions:
            return np.clip(action, low, high)
        outside = (action < low - 1e-6) | (action > high + 1e-6)
        if outside.any():
            raise ValueError(
                f"`action` {np.round(action, 4)} is outside the bounds +-{high} at index "
                f"{np.flatnonzero(outside).tolist()}. Clip it, or make the environment with "
                "clip_actions=True."
            )
        return action
