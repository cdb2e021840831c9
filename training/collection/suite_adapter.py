"""The suite's own environments as the collector sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from jepa_gym.envs.pictures.cameras import droid_extrinsics
from jepa_gym.envs.tasks.manipulation import ObjectTaskEnv
from jepa_gym.training.collection.adapter import Adapter, Policy
from jepa_gym.training.collection.explorers import start_episode


class SuiteAdapter(Adapter):
    """A task of the suite, with what only a simulator knows.

    Args:
        env: See `jepa_gym.training.collection.explorers.exploration_env`.
        image_size: As the environment's.
    """

    def __init__(self, env: ObjectTaskEnv, image_size: int) -> None:
        self.cameras = env.cameras
        super().__init__(env, image_size)
        self.franka = env

    def begin(self, seed: int, behaviours: dict[str, float]) -> tuple[str, Policy]:
        """Reset the environment and choose who acts in it, within the bounds of its actions."""
        kind, policy = start_episode(self.franka, seed, behaviours)
        space = self.franka.action_space
        assert isinstance(space, Box)
        return kind, lambda step: np.clip(policy(step), space.low, space.high)

    def state(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the measured state of the hand (7,)."""
        return self.franka.arm.state()

    def picture(self, observation: Any) -> np.ndarray:
        """Return a new frame of all cameras."""
        return self.franka.frame()

    def extrinsics(self) -> dict[str, np.ndarray]:
        """Return the cameras' poses."""
        poses = {name: self.franka.data.camera(name) for name in self.cameras}
        return {name: droid_extrinsics(pose.xpos, pose.xmat) for name, pose in poses.items()}

    def physics(self) -> np.ndarray:
        """Return the simulator's state."""
        return self.franka.get_state()["physics"]

    def metadata(self) -> dict[str, Any]:
        """Return the object, the look of the scene and the cameras' vertical fields of view."""
        views = {name: self.franka.model.camera(name).fovy for name in self.cameras}
        return {
            "object": self.franka.obj,
            "variation": self.franka.variation.to_dict(),
            "fovy_deg": {name: float(fovy.item()) for name, fovy in views.items()},
        }
