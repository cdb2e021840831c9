"""`FrankaEnv`: an episode as a Gymnasium environment; a task is a subclass with hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

from jepa_gym.actions import checked_actions
from jepa_gym.envs.droid import flange_action, hand_action, to_droid
from jepa_gym.envs.pictures.rendering import parse_cameras, parse_size
from jepa_gym.envs.pictures.window import Window, passive_viewer
from jepa_gym.envs.splits import sample_variation
from jepa_gym.envs.tasks.arguments import check_choices, check_range, check_split_has
from jepa_gym.envs.tasks.episode import Episode
from jepa_gym.envs.tasks.options import parse_options
from jepa_gym.envs.tasks.spaces import action_space, observation_space
from jepa_gym.envs.variations import Variation

COMMON_OPTIONS = ("variation", "recorded", "start_position", "object_position")


class FrankaEnv(Episode, gym.Env, EzPickle):
    """A Franka Panda at a table with one object: image goals, strict success, blocking moves.

    ## Protocol
    What the goal images are. `protocol="published"` (V-JEPA 2, section 4.2): one image of the final
    state, for pick-and-place three sub-goal images by time. `"suite"`: the task's own sub-goals,
    among them four for grasping. `"one"`: one image of the final state for every task.

    ## Action space
    `Box(7,)` float32, physical units: dx dy dz (m, base frame, +-`max_move_m`), rotation in the
    base frame as extrinsic xyz Euler angles (rad, +-0.3), change of the gripper's closedness (+-1).
    One step carries the move out and takes `step_s` seconds of simulated time.

    ## Observation space
    `Dict`: `observation` (7,) float32 state (x y z in m, roll pitch yaw in rad, closedness 0 open
    to 1 closed), `achieved_goal` and `desired_goal` (3,) float32 task positions in m. Unless
    `obs_mode="state"`, also `pixels` and `goal_pixels` (Y, X, 3) uint8 RGB, upright, and
    `goal_state` (7,) float32: picture and state of the sub-goal that is active now. With `depth`,
    also `depth` (Y, X) float32, metres along the optical axis.

    ## Reward
    0 if the task position is achieved, else -1 (`compute_reward`, vectorised). Success never
    terminates: it must hold at the end. The horizon is a truncation.

    ## Info
    `is_success`, `success` and `success_at_end` (the present state is a success), `success_once`,
    `failure` (None, or why it is no success: "not reached", "not grasped", "dropped", "toppled",
    "not released", "out of reach"), `distance_m`, `subgoal` (index), `elapsed_s`; after a step also
    `ik_error_m` (how far the commanded pose lies beyond the arm's reach) and `reward_sparse`; after
    a reset `variation`, everything that makes this episode look as it does, `protocol`, and
    `goal_shown`: what the episode shows of its goal (`"image"`, `"image x3 by time"`, ...).

    ## Reset options
    `variation` (a `Variation`, or a dict of its factors, on top of what is drawn), `recorded`
    ({"start": ..., "goal": ...}, two simulator states of one recorded episode: dataset goals),
    `start_position` (3,) m of the hand, `object_position` (2,) m, and those that a task adds.

    Args:
        obj: Object of the catalogue (`jepa_gym.envs.physics.objects.OBJECTS`).
        obs_mode: `"both"`, `"pixels"` (the same keys) or `"state"` (nothing is rendered).
        camera: `"left"`, `"right"`, `"front"`, `"droid"`, `"wrist"`, or several joined by `+` and
            tiled from left to right.
        image_size: Pixels of one camera's picture, one number or (height, width).
        depth: Also observe depth.
        split: None (every episode looks the same), or `"train"`, `"camera"`, `"appearance"`,
            `"object"`, `"all"` (new values between those of training), `"camera-far"`,
            `"appearance-far"` (values beyond): looks are drawn anew in each reset.
        variation: Factors of `Variation` that hold in every episode.
        goal_source: `"expert"` (sub-goals of a simulated demonstration) or `"random"` (one image of
            a random reachable state that is a success).
        protocol: `"published"`, `"suite"` or `"one"`, which goal images are shown.
        goal_schedule: `"time"` or `"progress"`, when the next sub-goal is shown (`GoalSchedule`).
        step_s: Simulated seconds of one step.
        max_move_m: Largest move per axis and step.
        state_convention: `"hand"` (states are of the point between the fingertips), or `"droid"`
            (of the flange, as in DROID; actions move it, too; see `jepa_gym.envs.droid`).
        clip_actions: Clip actions to the bounds instead of raising.
        render_mode: None, `"rgb_array"`, or `"human"`: a window that shows every reset and step at
            480 pixels a camera (extra `sim`).

    Raises:
        ValueError: An argument outside the allowed values, which the message names.
        RuntimeError: No OpenGL library is usable; the message names the packages. Or there is no
            display for `render_mode="human"`.
        ImportError: `render_mode="human"` without pygame.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 4}

    def __init__(
        self,
        obj: str = "box",
        obs_mode: str = "both",
        camera: str = "left",
        image_size: int | tuple[int, int] = 128,
        depth: bool = False,
        split: str | None = None,
        variation: Mapping[str, Any] | None = None,
        goal_source: str = "expert",
        protocol: str = "published",
        goal_schedule: str = "time",
        step_s: float = 0.25,
        max_move_m: float = 0.075,
        state_convention: str = "hand",
        clip_actions: bool = False,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(
            self, obj, obs_mode, camera, image_size, depth, split, variation, goal_source, protocol,
            goal_schedule, step_s, max_move_m, state_convention, clip_actions, render_mode,
        )  # fmt: skip
        check_choices(
            obs_mode=obs_mode, goal_source=goal_source, protocol=protocol, split=split,
            state_convention=state_convention, render_mode=render_mode,
        )  # fmt: skip
        check_range("step_s", step_s, 0.05, 5.0, "seconds")
        check_range("max_move_m", max_move_m, 0.005, 0.2, "metres")
        if depth and obs_mode == "state":
            raise ValueError('`depth` needs pictures: obs_mode="both" or "pixels"')
        check_split_has(split, obj)
        self.obs_mode, self.depth, self.render_mode = obs_mode, depth, render_mode
        size, views = parse_size(image_size), parse_cameras(camera)
        Episode.__init__(
            self, obj, views, size, renders=self.renders, shows_goals=obs_mode != "state",
            goal_source=goal_source, protocol=protocol, goal_schedule=goal_schedule,
            max_move_m=max_move_m,
        )  # fmt: skip
        self._fixed = dict(variation or {})
        self.use(Variation().replaced(self._fixed))
        self.split, self.state_convention = split, state_convention
        self.step_s, self.clip_actions = float(step_s), clip_actions
        self.metadata = self.metadata | {"render_fps": 1 / self.step_s}
        self.action_space: spaces.Box = action_space(self.max_move_m)
        self._window: Window | None = None
        if render_mode == "human":
            self._window = Window(views, type(self).__name__, 1 / self.step_s)
        frame = None if obs_mode == "state" else (size[0], size[1] * len(views))
        self.observation_space = observation_space(frame, depth)

    # ---- Gymnasium

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode; `seed` decides everything that follows.

        Raises:
            ValueError: Unknown or impossible `options`; the message names the allowed values.
            GoalError: No demonstration succeeded from any of the drawn starts.
        """
        self._check_open()
        checked = parse_options(options, (*COMMON_OPTIONS, *self.OPTIONS))
        super().reset(seed=seed)
        self.options = checked
        drawn = sample_variation(self.split, self.np_random) if self.split else Variation()
        given = self.options.get("variation", {})
        self.begin(drawn.replaced(self._fixed).replaced(given))
        if self._window is not None:
            self._window.look_at(self.model)
            self._window.show(self.data)
        info = self._info() | {"variation": self.variation.to_dict()}
        info |= {"protocol": self.protocol, "goal_shown": self.goal_schedule.shown}
        return self._observation(), info

    def step(self, action: np.ndarray):
        """Carry out one blocking move.

        Raises:
            ValueError: `action` is no real numbers, has a wrong shape, is not finite or out of
                bounds.
        """
        self._check_open()
        if not self.subgoals:
            raise gym.error.ResetNeeded("Call `reset()` before `step()`.")
        move = checked_actions(action, self.action_space, clip=self.clip_actions)
        if self.state_convention == "droid":
            move = hand_action(move, self.arm.state())
        self.advance(move, self.step_s)
        if self._window is not None:
            self._window.show(self.data)
        info = self._info()
        reward = float(self.compute_reward(self.achieved_goal(), self._goal, info))
        info |= {"ik_error_m": self.ik_error_m, "reward_sparse": reward}
        return self._observation(), reward, False, False, info

    def render(self) -> np.ndarray | None:
        """Return the present frame (Y, X, 3) uint8 if made with `render_mode="rgb_array"`.

        With `"human"`, the window has been drawn by `reset` and `step`.
        """
        return self.frame() if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        """Free pictures and window; safe to call twice."""
        if self._window is not None:
            self._window.close()
        super().close()

    # ---- beyond Gymnasium

    @property
    def renders(self) -> bool:
        """Whether this environment needs pictures at all."""
        return self.obs_mode != "state" or self.render_mode is not None

    def passive_viewer(self) -> Any:
        """Open MuJoCo's own viewer on the running episode; call its `sync()` after each step.

        An episode of another look may be another model: open it anew after a reset.

        Raises:
            RuntimeError: Without a display.
        """
        return passive_viewer(self.model, self.data)

    def expert_action(self) -> np.ndarray:
        """Return the scripted expert's action (7,) float32; reads privileged simulator state."""
        action = self.expert_move()
        if self.state_convention == "droid":
            turned = flange_action(action, self.arm.state())
            action = np.clip(turned, self.action_space.low, self.action_space.high)
        return action.astype(np.float32)

    def _check_open(self) -> None:
        if self.closed:
            raise gym.error.ClosedEnvironmentError("This environment is closed; make a new one.")

    def _observation(self) -> dict[str, np.ndarray]:
        observation = {
            "observation": self._observed(self.arm.state()),
            "achieved_goal": self.achieved_goal().astype(np.float32),
            "desired_goal": self._goal.copy(),
        }
        if self.obs_mode != "state":
            subgoal = self.subgoals[self._subgoal]
            observation["goal_state"] = self._observed(subgoal.state)
            observation["pixels"] = self.frame()
            observation["goal_pixels"] = subgoal.pixels.copy()
            if self.depth:
                observation["depth"] = self.depth_frame()
        return observation

    def _observed(self, state: np.ndarray) -> np.ndarray:
        """Return a state (7,) of the hand in the environment's convention, a new float32 array."""
        return to_droid(state) if self.state_convention == "droid" else state.astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return self.standing() | {"elapsed_s": self._steps * self.step_s}
