"""How the simulator is explored for training data: behaviours, mixed by seed.

Random motion alone rarely touches the object, and expert motion alone never shows what a wrong move
does; a world model that is to be planned with needs both, with many openings and closings of the
gripper. What is scripted stands in `jepa_gym.training.collection.behaviours`; every behaviour goes
with every task, with distractors where a split draws some.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from jepa_gym import TASKS
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.envs.tasks.base import FrankaEnv
from jepa_gym.envs.tasks.grasp import GOAL_LIFT_M, FrankaGraspEnv
from jepa_gym.envs.tasks.manipulation import ObjectTaskEnv
from jepa_gym.envs.tasks.reach import FrankaReachEnv
from jepa_gym.envs.tasks.sampling import first_fit, sample_hand_position, sample_object_place
from jepa_gym.training.collection.adapter import Policy, draw_behaviour
from jepa_gym.training.collection.behaviours import SCRIPTS, wander

DEFAULT_MIX = {"random": 0.2, "near": 0.2, "held": 0.25, "expert": 0.35}
"""Behaviour -> its share of the episodes by default: random moves anywhere, near the object, with
the object in the hand, and the task's expert with noise and mistakes."""
BEHAVIOURS = (*DEFAULT_MIX, *SCRIPTS)
LOW_M = WORKSPACE_LOW_M - [0.03, 0.03, 0.008]
HIGH_M = WORKSPACE_HIGH_M + 0.03
TURN_SHARE = 0.15
"""Share of episodes whose moves also turn the hand."""
NEAR_M = 0.09
"""How near to the object, sideways and above it, no hand starts."""


class ExplorationReachEnv(FrankaReachEnv, ObjectTaskEnv):
    """The reach scene, whose object is taken into the hand, too."""


class ExplorationEnv(FrankaGraspEnv):
    """The grasp scene without goals: a reset costs no simulated grasp."""

    def set_up_goal(self) -> None:
        """Keep to the task position of `FrankaGrasp-v0`, so that rewards mean the same."""
        self._goal = self.desired_goal().astype(np.float32)
        self.subgoals = [self.subgoal_now()]


def exploration_env(task: str, **kwargs: Any) -> ObjectTaskEnv:
    """Make the environment of a task for recording: no goal images, actions clipped.

    Args:
        task: A short name of `jepa_gym.TASKS`.
        **kwargs: Arguments of `FrankaEnv`: object, camera, size, split, step and bound of moves.
    """
    kind: Any = {"grasp": ExplorationEnv, "reach": ExplorationReachEnv}.get(task)
    if kind is None:
        kind = load_env_creator(str(gym.spec(TASKS[task]).entry_point))
    return kind(
        **kwargs,
        obs_mode="state",
        goal_source="random",  # one sub-goal, which is never shown
        clip_actions=True,
        render_mode="rgb_array",
    )


def start_episode(
    env: ObjectTaskEnv, seed: int, behaviours: dict[str, float]
) -> tuple[str, Policy]:
    """Reset an environment and choose who acts in it.

    Args:
        env: The environment.
        seed: Decides the episode.
        behaviours: Behaviour -> its weight.

    Returns:
        The behaviour and its policy.
    """
    env.reset(seed=seed)
    rng = env.np_random
    kind = draw_behaviour(rng, BEHAVIOURS, behaviours)
    turns = rng.random() < TURN_SHARE
    if kind in SCRIPTS:
        return kind, SCRIPTS[kind](env, rng).policy()
    if kind == "expert":
        return kind, _noisy_expert(env, rng)
    if kind == "held":
        _start_held(env, rng)
        return kind, wander(env.arm, env.max_move_m, rng, LOW_M, HIGH_M, 0.1, turns)
    if kind == "near":
        centre = env.object_position()
        low = np.maximum(LOW_M, centre - [0.09, 0.09, 0.02])
        high = np.minimum(HIGH_M, centre + [0.09, 0.09, 0.16])
        env.place_arm(_near_start(env, rng, low, high), closedness=_closedness(rng))
        env.scatter_distractors()
        return kind, wander(env.arm, env.max_move_m, rng, low, high, 0.35, turns)
    env.place_object(*sample_object_place(env))
    env.place_arm(sample_hand_position(env), closedness=_closedness(rng))
    env.scatter_distractors()
    return kind, wander(env.arm, env.max_move_m, rng, LOW_M, HIGH_M, 0.25, turns)


def _closedness(rng: np.random.Generator) -> float:
    return float(rng.choice([0.0, 1.0, rng.random()], p=[0.6, 0.2, 0.2]))


def _near_start(
    env: FrankaEnv, rng: np.random.Generator, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Draw a hand position (3,) within bounds that does not touch the object.

    Raises:
        RuntimeError: There is none within the bounds.
    """

    def clear(position: np.ndarray) -> bool:
        offset = position - env.object_position()
        return bool(np.linalg.norm(offset[:2]) > NEAR_M or offset[2] > NEAR_M)

    return first_fit(lambda: rng.uniform(low, high), clear, "place of a hand near the object")


def _start_held(env: ObjectTaskEnv, rng: np.random.Generator) -> None:
    env.place_arm(env.grasp_point() + [0, 0, rng.uniform(-0.008, 0.008)])
    close = np.zeros(7)
    close[6] = 1.0
    env.arm.move(close, env.step_s)
    lift = np.zeros(7)
    lift[:3] = [*rng.uniform(-0.05, 0.05, 2), rng.uniform(0, env.max_move_m)]
    for _ in range(int(rng.integers(0, 4))):
        env.arm.move(lift, env.step_s)


def _noisy_expert(env: FrankaEnv, rng: np.random.Generator) -> Policy:
    """Return the task's expert with noise and mistakes; after a grasp it carries and releases."""
    noise_m = rng.choice([0.0, 0.004, 0.01])
    mistake_rate = rng.choice([0.0, 0.1])
    carry_after = int(rng.integers(6, 14))
    target = rng.uniform([0.40, -0.16], [0.60, 0.16])

    def act(step: int) -> np.ndarray:
        action = env.expert_action().astype(np.float64)
        action[:3] *= rng.uniform(0.5, 1.0) if noise_m else 1.0
        if isinstance(env, ExplorationEnv) and env.object_held() and step >= carry_after:
            action = _carry(env, target)
        action[:3] += rng.normal(0, noise_m, 3) if noise_m else 0.0
        if rng.random() < mistake_rate:
            action[:3] = rng.uniform(-env.max_move_m, env.max_move_m, 3)
            action[6] = rng.choice([-1.0, 0.0, 1.0])
        return action

    return act


def _carry(env: ExplorationEnv, target: np.ndarray) -> np.ndarray:
    """Return the next move of: carry to `target` (2,), lower, release."""
    action = np.zeros(7)
    offset = target - env.object_position()[:2]
    if np.linalg.norm(offset) > 0.02:
        action[:2] = offset
        action[2] = (env.object_half_height() + GOAL_LIFT_M) - env.object_position()[2]
    elif env.object_clearance() > 0.01:
        action[2] = -min(env.max_move_m, env.object_clearance())
    else:
        action[6] = -1.0
    action[:3] = np.clip(action[:3], -env.max_move_m, env.max_move_m)
    return action
