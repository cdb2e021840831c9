"""`robosuite/Lift` and the like: robosuite's own tasks with this project's states and actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

from jepa_gym import ROBOSUITE_TASKS
from jepa_gym.actions import checked_actions
from jepa_gym.envs.droid import hand_action, to_droid
from jepa_gym.envs.physics.arm import OUT_OF_REACH_M
from jepa_gym.envs.physics.robosuite_scene import RobosuiteScene
from jepa_gym.envs.pictures.rendering import FrameRenderer, parse_size
from jepa_gym.envs.tasks.arguments import check_choices, check_range
from jepa_gym.envs.tasks.spaces import action_space, pixel_space, state_space
from jepa_gym.names import check_choice, did_you_mean


class RobosuiteEnv(gym.Env, EzPickle):
    """One of robosuite's single-arm tasks with a Panda; robosuite places the objects and judges.

    `gym.make("robosuite/Lift")` after `import jepa_gym`. Tasks, objects, rewards and success are
    robosuite's. States, actions, time and pictures are those of the suite, so that what is trained
    on one acts in the other:

    ## Action space
    `Box(7,)` float32: dx dy dz (m, the robot's base frame, +-`max_move_m`), rotation in the base
    frame as extrinsic xyz Euler angles (rad, +-0.3), change of the gripper's closedness (+-1). One
    step carries the move out, by servos of ours, and takes `step_s` seconds of simulated time.

    ## Observation space
    `Dict`: `observation` (7,) float32 state (x y z in m in the robot's base frame, roll pitch yaw
    in rad, closedness 0 open to 1 closed) and, unless `obs_mode="state"`, `pixels` (Y, X, 3) uint8
    RGB, upright. The base stands 11 cm above the table, whose top is at z = -0.112.

    ## Reward and info
    robosuite's own reward, which is not 0 in successful states. `is_success` and `success` on every
    step; `elapsed_s`; after a step `ik_error_m`, how far the commanded pose lies beyond the arm's
    reach. Success never terminates; the horizon, 100 steps, is a truncation.

    Args:
        task: Name of a task of robosuite, as after `robosuite/`.
        obs_mode: `"both"`, `"pixels"` (the same keys) or `"state"` (nothing is rendered).
        camera: `"left"`, `"right"`, `"front"`, `"droid"` (the suite's, around the table),
            `"wrist"`, robosuite's `"agentview"`, `"frontview"`, `"birdview"`, `"sideview"`, or
            several joined by `+` and tiled from left to right.
        image_size: Pixels of one camera's picture, one number or (height, width).
        step_s: Simulated seconds of one step.
        max_move_m: Largest move per axis and step.
        state_convention: `"hand"` (states are of the point between the fingertips), or `"droid"`
            (of the flange; actions move it, too; see `jepa_gym.envs.droid`).
        clip_actions: Clip actions to the bounds instead of raising.
        render_mode: None or `"rgb_array"`.

    Raises:
        ValueError: An argument outside the allowed values, which the message names.
        RuntimeError: No OpenGL library is usable; the message names the packages.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        task: str,
        obs_mode: str = "both",
        camera: str = "left",
        image_size: int | tuple[int, int] = 128,
        step_s: float = 0.25,
        max_move_m: float = 0.075,
        state_convention: str = "hand",
        clip_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(
            self, task, obs_mode, camera, image_size, step_s, max_move_m, state_convention,
            clip_actions, render_mode,
        )  # fmt: skip
        check_choice("task", task, ROBOSUITE_TASKS)
        check_choices(obs_mode=obs_mode, state_convention=state_convention)
        check_choice("render_mode", render_mode, (None, "rgb_array"))
        check_range("step_s", step_s, 0.05, 5.0, "seconds")
        check_range("max_move_m", max_move_m, 0.005, 0.2, "metres")
        size = parse_size(image_size)
        self.task, self.obs_mode, self.render_mode = task, obs_mode, render_mode
        self.step_s, self.max_move_m = float(step_s), float(max_move_m)
        self.state_convention, self.clip_actions = state_convention, clip_actions
        self.metadata = self.metadata | {"render_fps": 1 / self.step_s}
        self.scene = RobosuiteScene(task)
        self.cameras = _checked_cameras(camera, self.scene.model)
        self._frames: FrameRenderer | None = None
        if obs_mode != "state" or render_mode is not None:
            self._frames = FrameRenderer(self.scene.model, self.cameras, size)
        self._steps, self._is_reset = 0, False
        self.action_space: spaces.Box = action_space(self.max_move_m)
        found: dict[str, spaces.Space] = {"observation": state_space()}
        if obs_mode != "state":
            found["pixels"] = pixel_space((size[0], size[1] * len(self.cameras)))
        self.observation_space = spaces.Dict(found)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode; `seed` decides everything that follows.

        Raises:
            ValueError: `options` were given; there are none.
        """
        if options:
            raise ValueError(f"robosuite's tasks have no reset options, got {sorted(options)}")
        super().reset(seed=seed)
        self.scene.reset(self.np_random)
        self._steps, self._is_reset = 0, True
        return self._observation(), self._info()

    def step(self, action: np.ndarray):
        """Carry out one blocking move.

        Raises:
            ValueError: `action` is no real numbers, has a wrong shape, is not finite or out of
                bounds.
        """
        if not self._is_reset:
            raise gym.error.ResetNeeded("Call `reset()` before `step()`.")
        move = checked_actions(action, self.action_space, clip=self.clip_actions)
        if self.state_convention == "droid":
            move = hand_action(move, self.scene.arm.state())
        error = self.scene.arm.move(move, self.step_s)
        self._steps += 1
        info = self._info() | {"ik_error_m": error, "out_of_reach": error > OUT_OF_REACH_M}
        return self._observation(), self.scene.reward(), False, False, info

    def render(self) -> np.ndarray | None:
        """Return the present frame (Y, X, 3) uint8 if made with `render_mode="rgb_array"`."""
        return self._frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free what the pictures took; safe to call twice."""
        if self._frames is not None:
            self._frames.close()

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future; give it back to `set_state` to branch."""
        return {
            "physics": self.scene.physics(),
            "closing": self.scene.arm.closing,
            "steps": self._steps,
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore simulator, gripper command and random generator from `get_state`."""
        self.scene.set_physics(state["physics"], state["closing"])
        self._steps = state["steps"]
        self.np_random.bit_generator.state = state["rng"]

    def _observation(self) -> dict[str, np.ndarray]:
        state = self.scene.arm.state()
        turned = to_droid(state) if self.state_convention == "droid" else state.astype(np.float32)
        observation = {"observation": turned}
        if self.obs_mode != "state":
            observation["pixels"] = self._frame()
        return observation

    def _frame(self) -> np.ndarray:
        assert self._frames is not None
        return self._frames.render(self.scene.data)

    def _info(self) -> dict[str, Any]:
        success = self.scene.succeeds()
        return {
            "is_success": success,
            "success": success,
            "elapsed_s": self._steps * self.step_s,
        }


def _checked_cameras(camera: str, model: mujoco.MjModel) -> tuple[str, ...]:
    """Split `"left+wrist"` into names of cameras of a scene.

    Raises:
        ValueError: If a name is unknown or stands twice; the message lists the allowed ones.
    """
    names = tuple(str(camera).split("+"))
    known = [model.camera(index).name for index in range(model.ncam)]
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) != len(names):
        meant = did_you_mean(unknown[0], known) if unknown else ""
        raise ValueError(
            f"`camera` must be one of {known} or several joined by '+', got {camera!r}.{meant}"
        )
    return names
