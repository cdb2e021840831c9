"""`Episode`: what an episode asks and how it stands, without Gymnasium; tasks fill its hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from jepa_gym.config import MAX_TURN_RAD
from jepa_gym.envs.physics.arm import FINGER_TRAVEL_M
from jepa_gym.envs.physics.scene import HOME
from jepa_gym.envs.physics.workbench import Workbench
from jepa_gym.envs.tasks.sampling import first_fit, sample_clear_places
from jepa_gym.envs.tasks.schedule import GoalSchedule
from jepa_gym.envs.variations import Variation

GOAL_ATTEMPTS = 20
STRAIGHT_RAD = 0.03
"""Turn of the hand that an expert does not mind."""
SUCCESS_M = 0.04
"""How near is near enough."""
_STANDING = (
    "_steps", "_subgoal", "_goal", "subgoals", "goal_schedule", "object_start", "held_once",
    "_success_once", "ik_error_m",
)  # fmt: skip
"""Attributes that say how an episode stands, beside the simulation."""
RECORDED_MAX = 10.0
"""Bound of positions (m) and angles (rad) in recorded simulator states."""


@dataclass(frozen=True)
class SubGoal:
    """The hand's state (7,) and the goal image (Y, X, 3) that shows it, empty without pictures."""

    state: np.ndarray
    pixels: np.ndarray


class GoalError(RuntimeError):
    """The simulated demonstration did not end in success, so there is no consistent goal image."""


class Episode(Workbench):
    """Start, goal, sub-goals and present standing of one episode on the workbench.

    Args:
        obj: Object of the catalogue.
        cameras: Names of the cameras, tiled from left to right.
        image_size: (height, width) of one camera's picture.
        renders: Whether pictures are wanted at all.
        shows_goals: Whether sub-goals have pictures.
        goal_source: `"expert"` or `"random"`, see `FrankaEnv`.
        protocol: `"published"`, `"suite"` or `"one"`.
        goal_schedule: `"time"` or `"progress"`.
        max_move_m: Largest move per axis and step.
    """

    SCHEDULE: dict[str, int] = {"goal": 0}
    """The suite's sub-goals of a demonstration -> steps for which each is shown (0: to the end)."""
    PUBLISHED: dict[str, int] | None = None
    """The same as published; None: one image of the final state."""
    OPTIONS: tuple[str, ...] = ()
    """Reset options beside those of every task."""
    np_random: np.random.Generator
    """The episode's generator."""

    def __init__(
        self,
        obj: str,
        cameras: tuple[str, ...],
        image_size: tuple[int, int],
        *,
        renders: bool,
        shows_goals: bool,
        goal_source: str,
        protocol: str,
        goal_schedule: str,
        max_move_m: float,
    ) -> None:
        super().__init__(obj, cameras, image_size, renders=renders)
        self.goal_source, self.protocol, self.max_move_m = goal_source, protocol, float(max_move_m)
        self._shows_goals = shows_goals
        shown = self.shown_by("one" if goal_source == "random" else protocol)
        self._schedule = GoalSchedule(tuple(shown), tuple(shown.values()), goal_schedule)
        self.goal_schedule = self._schedule
        self.options: dict[str, Any] = {}
        self.subgoals: list[SubGoal] = []
        self._goal = np.zeros(3, np.float32)
        self._target = np.zeros(0)
        """Where the task wants hand or object to be, metres; empty if it draws no place."""
        self._steps = self._subgoal = 0
        self._success_once = False
        self.object_start = np.zeros(3)
        """Where the object's centre was at the start, metres."""
        self.held_once = False
        """Whether the object has been held in this episode."""
        self.ik_error_m = 0.0
        """Kinematic error of the last move, metres."""

    @classmethod
    def shown_by(cls, protocol: str) -> dict[str, int]:
        """Return the sub-goals that a protocol shows -> steps for which each is shown."""
        shown = {"suite": cls.SCHEDULE, "published": cls.PUBLISHED}.get(protocol)
        return shown or {list(cls.SCHEDULE)[-1]: 0}

    # ---- hooks of a task

    def sample_task(self) -> None:
        """Place object and arm for a new episode, drawing from `self.np_random`."""
        raise NotImplementedError

    def make_goal(self) -> Iterator[str]:
        """Simulate a demonstration; yield each name of `SCHEDULE` while its state is there.

        Starts from the episode's start; the last name is yielded in the goal's state. The start is
        restored afterwards.

        Raises:
            GoalError: The demonstration failed; another start is drawn then.
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
        """Return 0 where within 4 cm, else -1, for goals (..., 3) in metres; pure, vectorised."""
        achieved = np.asarray(achieved_goal, np.float32)
        distance = np.linalg.norm(achieved - np.asarray(desired_goal, np.float32), axis=-1)
        return -(distance > SUCCESS_M).astype(np.float32)

    def expert_move(self) -> np.ndarray:
        """Return the scripted expert's action (7,) float32; reads privileged simulator state."""
        raise NotImplementedError

    def keep_clear(self) -> list[np.ndarray]:
        """Return the places (2,) in metres where no distractor may stand: object, hand, target."""
        targets = [self._target[:2]] if len(self._target) else []
        return [self.object_position()[:2], self.arm.state()[:2], *targets]

    # ---- the course of an episode

    def begin(self, variation: Variation) -> None:
        """Start an episode that looks like `variation`; another start is drawn if a goal fails.

        Raises:
            ValueError: `options` ask for what is impossible.
            GoalError: No demonstration succeeded from any of the drawn starts.
        """
        self.subgoals = []  # no step until there is a goal
        self.use(variation)
        for attempt in range(GOAL_ATTEMPTS):
            self._place_everything()
            try:
                self.set_up_goal()
                return
            except GoalError:
                if "recorded" in self.options or attempt == GOAL_ATTEMPTS - 1:
                    raise

    def advance(self, action: np.ndarray, step_s: float) -> None:
        """Carry out one blocking move of the hand, `action` (7,), and switch sub-goals."""
        self.ik_error_m = self.arm.move(action, step_s)
        self._steps += 1
        self._subgoal = self.goal_schedule.advance(
            self._subgoal, self._steps, self.arm.state(), self.subgoals[self._subgoal].state
        )

    def standing(self) -> dict[str, Any]:
        """Return the episode's info: success now and once, failure, distance, sub-goal."""
        self.held_once = self.held_once or self.object_held()
        info = self.task_info()
        success = info["is_success"]
        self._success_once = self._success_once or success
        return info | {
            "success": success,
            "success_at_end": success,
            "success_once": self._success_once,
            "subgoal": self._subgoal,
        }

    def get_state(self) -> dict[str, Any]:
        """Return everything that decides the future; give it back to `set_state` to branch.

        Gymnasium's `TimeLimit` around this environment keeps a count of its own: step the unwrapped
        environment in branches.
        """
        return {name: copy.copy(getattr(self, name)) for name in _STANDING} | {
            "physics": self.stage.physics(),
            "closing": self.arm.closing,
            "variation": self.variation,
            "rng": self.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore simulator, controller, look, goal and random generator from `get_state`."""
        self.use(state["variation"])
        self.stage.set_physics(state["physics"])
        self.arm.closing = state["closing"]
        self.np_random.bit_generator.state = state["rng"]
        for name in _STANDING:
            setattr(self, name, copy.copy(state[name]))

    # ---- goals

    def goal_position(self) -> np.ndarray:
        """Return the task position (3,) in metres that the episode asks for."""
        return self._goal.astype(np.float64)

    def subgoal_now(self) -> SubGoal:
        """Return a sub-goal that shows the present state."""
        pixels = self.frame() if self._shows_goals else np.empty((0, 0, 3), np.uint8)
        return SubGoal(self.arm.state().astype(np.float32), pixels)

    def set_up_goal(self) -> None:
        """Decide the episode's goal and its sub-goals; the simulation ends where it started.

        What the goal drew from the generator stays drawn.

        Raises:
            GoalError: The goal's state is no success of the task.
        """
        start = self.get_state()
        if "recorded" in self.options:
            self._load_recorded("goal")
            subgoals = [self.subgoal_now()]
            start["goal_schedule"] = GoalSchedule(("goal",), (0,), self.goal_schedule.mode)
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
        drawn = self.np_random.bit_generator.state
        self.set_state(start | {"_goal": self._goal, "subgoals": subgoals, "rng": drawn})

    def chosen(
        self,
        option: str,
        draw: Callable[[], np.ndarray],
        fits: Callable[[np.ndarray], bool] = lambda place: True,
    ) -> np.ndarray:
        """Return the place that a reset option gives, else the first drawn one that fits."""
        given = self.options.get(option)
        return first_fit(draw, fits, f"`{option}`") if given is None else given

    def move_by(self, offset: np.ndarray, closing: float = 0.0) -> np.ndarray:
        """Return the action (7,) float32 of an expert that wants to move by `offset` (3,) m.

        The move is shortened to the bounds, its direction kept; a hand that is turned turns back.
        """
        action = np.zeros(7, np.float32)
        action[:3] = offset * min(1.0, self.max_move_m / max(1e-9, np.abs(offset).max()))
        turn = self.arm.state()[3:6]
        if np.abs(turn).max() > STRAIGHT_RAD:
            action[3:6] = np.clip(-turn, -MAX_TURN_RAD, MAX_TURN_RAD)
        action[6] = closing
        return action

    def scatter_distractors(self) -> None:
        """Stand the variation's distractors on the table, those without a place at a drawn one.

        Call it again after object or hand were put elsewhere.
        """
        things = self.variation.distractors
        if not things:
            return
        fixed = [np.array(thing.position) for thing in things if thing.position is not None]
        taken = [*self.keep_clear(), *fixed]
        drawn = iter(sample_clear_places(self.np_random, taken, len(things) - len(fixed)))
        self.stage.place_distractors(
            [next(drawn) if thing.position is None else thing.position for thing in things]
        )
        mujoco.mj_forward(self.model, self.data)

    # ---- internals

    def _place_everything(self) -> None:
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
            self.scatter_distractors()
        self.held_once = self.object_held()
        self.object_start = self.object_position()

    def _load_recorded(self, which: str) -> None:
        self.stage.set_physics(self.options["recorded"][which])
        if np.abs(self.data.qpos).max() > RECORDED_MAX:
            raise ValueError(
                f"the recorded {which} is no state of this scene: a position of "
                f"{np.abs(self.data.qpos).max():.3g} m or rad (at most {RECORDED_MAX:g})"
            )
        self.arm.closing = float(np.clip(1.0 - self.data.ctrl[7] / FINGER_TRAVEL_M, 0.0, 1.0))
