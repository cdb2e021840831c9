"""robosuite's tasks as the collector sees them: random moves, moves near an object, grasps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.envs.pictures.cameras import droid_extrinsics
from jepa_gym.envs.tasks.robosuite_task import RobosuiteEnv
from jepa_gym.training.collection.adapter import Adapter, Policy
from jepa_gym.training.collection.behaviours import wander

LOW_M, HIGH_M = np.array([0.30, -0.35, -0.10]), np.array([0.72, 0.40, 0.28])
"""Where the hand wanders, base frame; the table's top is at z = -0.112."""
AROUND_M = np.array([0.10, 0.10, 0.12])
"""How far from an object the hand wanders near it."""
HOVER_M = 0.08
ALIGNED_M = 0.01
GRIPPER_RATE = 0.25
"""Share of the random moves that open or close the gripper."""
NOISE_M = (0.0, 0.004)


class RobosuiteAdapter(Adapter):
    """A task of robosuite with its cameras' poses, its simulator's state, and three behaviours.

    `random`: random moves over the table, with openings and closings. `near`: the same around one
    of the task's objects. `grasp`: over an object, down, close, lift and carry it about; it may
    fail, for objects that cannot be taken from above at their middle.

    Args:
        env: The environment, as `make` made it.
        image_size: As the environment's.
    """

    behaviours = {"random": 0.3, "near": 0.3, "grasp": 0.4}

    def __init__(self, env: gym.Env, image_size: int) -> None:
        base = env.unwrapped
        assert isinstance(base, RobosuiteEnv)
        self.robot = base
        self.cameras = base.cameras
        super().__init__(env, image_size)

    @classmethod
    def make(cls, env_id: str, frame: dict[str, Any], **kwargs: Any) -> gym.Env:
        """Make the environment with the views and the step of the collection."""
        return super().make(env_id, frame, **{"clip_actions": True} | frame | kwargs)

    def policy(self, behaviour: str, rng: np.random.Generator) -> Policy:
        """Return who acts: see the class."""
        arm, bound = self.robot.scene.arm, self.robot.max_move_m
        places = self.objects()
        name = str(rng.choice(sorted(places)))
        if behaviour == "random":
            move = wander(arm, bound, rng, LOW_M, HIGH_M, GRIPPER_RATE)
        elif behaviour == "near":
            low = np.maximum(places[name] - AROUND_M * [1, 1, 0], LOW_M)
            high = np.minimum(places[name] + AROUND_M, HIGH_M)
            move = wander(arm, bound, rng, low, high, GRIPPER_RATE)
        else:
            move = self._grasping(name, rng)
        space = self.robot.action_space
        return lambda step: np.clip(move(step), space.low, space.high).astype(np.float32)

    def extrinsics(self) -> dict[str, np.ndarray]:
        """Return the cameras' poses in the robot's base frame."""
        scene = self.robot.scene
        poses = {name: scene.data.camera(name) for name in self.cameras}
        return {
            name: droid_extrinsics(pose.xpos - scene.base_m, pose.xmat)
            for name, pose in poses.items()
        }

    def physics(self) -> np.ndarray:
        """Return the simulator's state."""
        return self.robot.scene.physics()

    def metadata(self) -> dict[str, Any]:
        """Return the task's name."""
        return {"task": self.robot.task}

    def objects(self) -> dict[str, np.ndarray]:
        """Return the objects that the hand may come near to -> their places (3,) in metres."""
        places = self.robot.scene.objects()
        middle, half = (LOW_M + HIGH_M) / 2, (HIGH_M - LOW_M) / 2 + 0.1
        near = {
            name: place
            for name, place in places.items()
            if not name.startswith("Visual") and (np.abs(place - middle) < half).all()
        }
        return near or {"table": middle}

    def _grasping(self, name: str, rng: np.random.Generator) -> Policy:
        """Return who grasps an object, in half of the episodes some millimetres off."""
        moves, noise_m = self._grasp(name, rng), rng.choice(NOISE_M)

        def act(step: int) -> np.ndarray:
            return next(moves) + [*rng.normal(0, noise_m, 3), 0, 0, 0, 0]

        return act

    def _grasp(self, name: str, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield the moves (7,) of: over an object, down, close, lift, carry about."""
        arm = self.robot.scene.arm
        for _ in range(8):
            state = arm.state()
            offset = self.objects().get(name, state[:3]) - state[:3]
            if np.abs(offset).max() < ALIGNED_M:
                break
            if np.linalg.norm(offset[:2]) > ALIGNED_M:
                offset[2] += HOVER_M  # sideways only above it
            yield self._move(offset, -state[6])
        yield self._move(np.zeros(3), 1.0)
        yield self._move(np.array([0, 0, self.robot.max_move_m]))
        while True:
            goal = rng.uniform(LOW_M + [0, 0, 0.12], HIGH_M)
            for _ in range(int(rng.integers(1, 4))):
                yield self._move(goal - arm.state()[:3])
            if rng.random() < 0.3:
                yield self._move(np.zeros(3), -1.0)

    def _move(self, offset: np.ndarray, closing: float = 0.0) -> np.ndarray:
        """Return the action (7,) of a move that keeps its direction within the bounds."""
        scale = min(1.0, self.robot.max_move_m / max(1e-9, float(np.abs(offset).max())))
        turn = np.clip(-self.robot.scene.arm.state()[3:6], -0.3, 0.3)
        return np.array([*(offset * scale), *turn, closing])
