"""`FrankaEnv`: what all tasks share. A task is a subclass with hooks (see CONTRIBUTING)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.utils import EzPickle

from jepa_gym.actions import checked_actions
from jepa_gym.config import MAX_TURN_RAD
from jepa_gym.envs.droid import flange_action, hand_action, to_droid
from jepa_gym.envs.physics.arm import FINGER_TRAVEL_M
from jepa_gym.envs.physics.scene import HOME
from jepa_gym.envs.physics.workbench import Workbench
from jepa_gym.envs.pictures.rendering import parse_cameras, parse_size
from jepa_gym.envs.tasks.arguments import check_choices, check_range, check_split_has
from jepa_gym.envs.tasks.options import parse_options
from jepa_gym.envs.tasks.schedule import GoalSchedule
from jepa_gym.envs.tasks.spaces import action_space, observation_space
from jepa_gym.envs.variations import Variation, sample_variation

GOAL_ATTEMPTS = 20
STRAIGHT_RAD = 0.03
"""Turn of the hand that an expert does not mind."""
COMMON_OPTIONS = ("variation", "recorded", "start_position", "object_position")


@dataclass(frozen=True)
class SubGoal:
    """A goal image and the hand's state (7,) that it shows."""

    state: np.ndarray
    pixels: np.ndarray | None


class GoalError(RuntimeError):
    """The simulated demonstration did not end in success, so there is no consistent goal image."""


class FrankaEnv(Workbench, gym.Env, EzPickle):
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
        obj: object of the catalogue (`jepa_gym.envs.physics.objects.OBJECTS`).
        obs_mode: `"both"`, `"pixels"` (the same keys) or `"state"` (nothing is rendered).
        camera: `"left"`, `"right"`, `"front"`, `"droid"`, `"wrist"`, or several joined by `+` and
            tiled from left to right.
        image_size: pixels of one camera's picture, one number or (height, width).
        depth: also observe depth.
        split: None (every episode looks the same), or `"train"`, `"object"`, `"camera"`,
            `"appearance"`, `"all"`: looks are drawn anew in each reset.
        variation: factors of `Variation` that hold in every episode.
        goal_source: `"expert"` (sub-goals of a simulated demonstration) or `"random"` (one image of
            a random reachable state that is a success).
        protocol: `"published"`, `"suite"` or `"one"`, which goal images are shown.
        goal_schedule: `"time"` or `"progress"`, when the next sub-goal is shown (`GoalSchedule`).
        step_s: simulated seconds of one step.
        max_move_m: largest move per axis and step.
        state_convention: `"hand"` (states are of the point between the fingertips), or `"droid"`
            (of the flange, as in DROID; actions move it, too; see `jepa_gym.envs.droid`).
        clip_actions: clip actions to the bounds instead of raising.
        render_mode: None or `"rgb_array"`.

    Raises:
        ValueError: an argument outside the allowed values, which the message names.
        RuntimeError: no OpenGL library is usable; the message names the packages.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    SCHEDULE: dict[str, int] = {"goal": 0}
    """The suite's sub-goals of a demonstration -> steps for which each is shown (0: to the end)."""
    PUBLISHED: dict[str, int] | None = None
    """The same as published; None: one image of the final state."""
    OPTIONS: tuple[str, ...] = ()
    """Reset options beside those of every task."""

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
        Workbench.__init__(self, obj, views, size, renders=self.renders)
        self._fixed = dict(variation or {})
        self.use(Variation().replaced(self._fixed))
        self.split, self.goal_source, self.protocol = split, goal_source, protocol
        self.state_convention = state_convention
        self.step_s, self.max_move_m = float(step_s), float(max_move_m)
        self.clip_actions = clip_actions
        shown = self.SCHEDULE if protocol == "suite" else self.PUBLISHED
        if shown is None or protocol == "one" or goal_source == "random":
            shown = {list(self.SCHEDULE)[-1]: 0}
        self._schedule = GoalSchedule(tuple(shown), tuple(shown.values()), goal_schedule)
        self.goal_schedule = self._schedule
        self.metadata = self.metadata | {"render_fps": 1 / self.step_s}
        self.action_space = action_space(self.max_move_m)
        frame = None if obs_mode == "state" else (size[0], size[1] * len(views))
        self.observation_space = observation_space(frame, depth)
        self.options: dict[str, Any] = {}
        self.subgoals: list[SubGoal] = []
        self._goal = np.zeros(3, np.float32)
        self._steps = self._subgoal = 0
        self._success_once = False
        self.object_start = np.zeros(3)
        """Where the object's centre was at the start, metres."""
        self.held_once = False
        """Whether the object has been held in this episode."""
        self.ik_error_m = 0.0
        """Kinematic error of the last move, metres."""

    # ---- hooks of a task

    def sample_task(self) -> None:
        """Place object and arm for a new episode, drawing from `self.np_random`."""
        raise NotImplementedError

    def make_goal(self) -> Iterator[str]:
        """Simulate a demonstration; yield each name of `SCHEDULE` while its state is there.

        Starts from the episode's start; the last name is yielded in the goal's state. The start is
        restored afterwards.

        Raises:
            GoalError: the demonstration failed; another start is drawn then.
        """
        raise NotImplementedError

    def desired_goal(self) -> np.ndarray:
        """Return the task position (3,) in metres that the present state stands for as a goal."""
        return self.achieved_goal()

    def achieved_goal(self) -> np.ndarray:
        """Return the task position (3,) in metres that has been achieved now."""
        raise NotImplementedError

    def task_info(self) -> dict[str, Any]:
        """Return `is_success` (bool), `failure` (str or None) and `distance_m` (float) now."""
        raise NotImplementedError

    def compute_reward(self, achieved_goal, desired_goal, info) -> np.ndarray | float:
        """Return 0 where achieved, else -1, for goals (..., 3) in metres; pure and vectorised."""
        raise NotImplementedError

    def expert_action(self) -> np.ndarray:
        """Return the scripted expert's action (7,) float32; reads privileged simulator state."""
        raise NotImplementedError

    # ---- Gymnasium

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Start an episode; `seed` decides everything that follows.

        Raises:
            ValueError: unknown or impossible `options`; the message names the allowed values.
            GoalError: no demonstration succeeded from any of the drawn starts.
        """
        super().reset(seed=seed)
        self.options = parse_options(
            options,
            (*COMMON_OPTIONS, *self.OPTIONS),
        )
        drawn = sample_variation(self.split, self.np_random) if self.split else Variation()
        given = self.options.get("variation", {})
        self.use(drawn.replaced(self._fixed).replaced(given))
        for attempt in range(GOAL_ATTEMPTS):
            self._begin_episode()
            try:
                self.set_up_goal()
                break
            except GoalError:
                if "recorded" in self.options or attempt == GOAL_ATTEMPTS - 1:
                    raise
        observation, info = self._observation(), self._info()
        info["variation"] = self.variation.to_dict()
        info |= {"protocol": self.protocol, "goal_shown": self.goal_schedule.shown}
        return observation, info

    def step(self, action: np.ndarray):
        """Carry out one blocking move.

        Raises:
            ValueError: `action` has a wrong shape, is not finite or out of bounds.
        """
        if not self.subgoals:
            raise gym.error.ResetNeeded("Call `reset()` before `step()`.")
        action = checked_actions(action, self.action_space, clip=self.clip_actions)
        if self.state_convention == "droid":
            action = hand_action(action, self.arm.state())
        self.ik_error_m = self.arm.move(action, self.step_s)
        self._steps += 1
        subgoal = self.subgoals[self._subgoal]
        self._subgoal = self.goal_schedule.advance(
            self._subgoal, self._steps, self.arm.state(), subgoal.state
        )
        info = self._info()
        reward = float(self.compute_reward(self.achieved_goal(), self._goal, info))
        info |= {"ik_error_m": self.ik_error_m, "reward_sparse": reward}
        return self._observation(), reward, False, False, info

    def render(self) -> np.ndarray | None:
        """Return the present frame (Y, X, 3) uint8 if made with `render_mode="rgb_array"`."""
        return self.frame() if self.render_mode == "rgb_array" else None

    # ---- beyond Gymnasium

    @property
    def renders(self) -> bool:
        """Whether this environment needs pictures at all."""
        return self.obs_mode != "state" or self.render_mode is not None

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future; give it back to `set_state` to branch.

        Gymnasium's `TimeLimit` around this environment keeps a count of its own: step the unwrapped
        environment in branches.
        """
        return {
            "physics": self.stage.physics(),
            "closing": self.arm.closing,
            "variation": self.variation,
            "steps": self._steps,
            "subgoal": self._subgoal,
            "goal": self._goal.copy(),
            "subgoals": list(self.subgoals),
            "schedule": self.goal_schedule,
            "object_start": self.object_start.copy(),
            "held_once": self.held_once,
            "success_once": self._success_once,
            "ik_error_m": self.ik_error_m,
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore simulator, controller, look, goal and random generator from `get_state`."""
        self.use(state["variation"])
        self.stage.set_physics(state["physics"])
        self.arm.closing = state["closing"]
        self._steps, self._subgoal = state["steps"], state["subgoal"]
        self._goal = state["goal"].copy()
        self.subgoals, self.goal_schedule = list(state["subgoals"]), state["schedule"]
        self.object_start = state["object_start"].copy()
        self.held_once, self._success_once = state["held_once"], state["success_once"]
        self.ik_error_m = state["ik_error_m"]
        self.np_random.bit_generator.state = state["rng"]

    def goal_position(self) -> np.ndarray:
        """Return the task position (3,) in metres that the episode asks for."""
        return self._goal.astype(np.float64)

    def subgoal_now(self) -> SubGoal:
        """Return a sub-goal that shows the present state."""
        pixels = self.frame() if self.obs_mode != "state" else None
        return SubGoal(self.arm.state().astype(np.float32), pixels)

    def move_by(self, offset: np.ndarray, closing: float = 0.0) -> np.ndarray:
        """Return the action (7,) float32 of an expert that wants to move by `offset` (3,) m.

        The move is shortened to the bounds, its direction kept; a hand that is turned turns back.
        """
        action = np.zeros(7, np.float32)
        action[:3] = offset * min(1.0, self.max_move_m / max(1e-9, np.abs(offset).max()))
        state = self.arm.state()
        if np.abs(state[3:6]).max() > STRAIGHT_RAD:
            action[3:6] = np.clip(-state[3:6], -MAX_TURN_RAD, MAX_TURN_RAD)
        action[6] = closing
        if self.state_convention == "droid":
            action[:3] = flange_action(action, state)[:3].clip(-self.max_move_m, self.max_move_m)
        return action

    def keep_clear(self) -> list[np.ndarray]:
        """Return the places (2,) in metres where no distractor may stand."""
        return [self.object_position()[:2], self.arm.state()[:2]]

    def set_up_goal(self) -> None:
        """Decide the episode's goal and its sub-goals; the simulation ends where it started.

        Raises:
            GoalError: the goal's state is no success of the task.
        """
        start = self.get_state()
        if "recorded" in self.options:
            self._load_recorded("goal")
            subgoals = [self.subgoal_now()]
            start["schedule"] = GoalSchedule(("goal",), (0,), self.goal_schedule.mode)
        else:
            names = self.goal_schedule.names
            subgoals = [self.subgoal_now() for name in self.make_goal() if name in names]
        self._goal = np.asarray(self.desired_goal(), np.float32)
        self.held_once |= self.object_held()
        failure = self.task_info()["failure"]
        if failure is not None:
            raise GoalError(
                f"The goal of {type(self).__name__} with {self.obj!r} shows no success of its own "
                f"task: {failure}. With `options`, choose other positions or frames; else check "
                "the object's entry in envs/physics/objects.py."
            )
        self.set_state(start | {"goal": self._goal, "subgoals": subgoals})

    # ---- internals

    def _begin_episode(self) -> None:
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:7] = HOME
        self._steps = self._subgoal = 0
        self.held_once = self._success_once = False
        self.ik_error_m = 0.0
        self.goal_schedule = self._schedule
        if "recorded" in self.options:
            self._load_recorded("start")
        else:
            self.sample_task()
            self.place_distractors(self.keep_clear(), self.np_random)
        self.held_once = self.object_held()
        self.object_start = self.object_position()

    def _load_recorded(self, which: str) -> None:
        recorded = self.options["recorded"]
        if not isinstance(recorded, Mapping) or set(recorded) != {"start", "goal"}:
            raise ValueError(
                "option `recorded` must be a dict with the keys 'start' and 'goal', two simulator "
                "states of one recorded episode"
            )
        self.stage.set_physics(np.asarray(recorded[which], np.float64))
        self.arm.closing = float(np.clip(1.0 - self.data.ctrl[7] / FINGER_TRAVEL_M, 0.0, 1.0))

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
        self.held_once = self.held_once or self.object_held()
        info = self.task_info()
        success = info["is_success"]
        self._success_once = self._success_once or success
        info |= {
            "success": success,
            "success_at_end": success,
            "success_once": self._success_once,
            "subgoal": self._subgoal,
            "elapsed_s": self._steps * self.step_s,
        }
        return info
