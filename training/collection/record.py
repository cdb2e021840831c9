"""Play one episode in the simulator and keep everything of it."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box

from jepa_gym.envs.pictures.cameras import droid_extrinsics
from jepa_gym.envs.tasks.base import FrankaEnv
from jepa_gym.training.collection.explorers import start_episode
from jepa_gym.training.data.episodes import Episode


def record_episode(env: FrankaEnv, seed: int, steps: int, behaviours: dict[str, float]) -> Episode:
    """Play and return one episode.

    Args:
        env: What is recorded, see `jepa_gym.training.collection.explorers.exploration_env`.
        seed: Decides the whole episode.
        steps: Moves; the episode has one frame more.
        behaviours: Behaviour -> its weight, see `jepa_gym.training.collection.explorers`.

    Returns:
        The episode, with the simulator's state, rewards and the cameras' poses.
    """
    assert isinstance(env.action_space, Box)
    kind, policy = start_episode(env, seed, behaviours)
    frames, states, physics, cameras = [], [], [], []
    actions, rewards, success = [], [], []

    def observe() -> None:
        frames.append(env.render())
        states.append(env.arm.state())
        physics.append(env.get_state()["physics"])
        poses = (env.data.camera(name) for name in env.cameras)
        cameras.append([droid_extrinsics(pose.xpos, pose.xmat) for pose in poses])

    observe()
    for step in range(steps):
        action = np.clip(policy(step), env.action_space.low, env.action_space.high)
        _, reward, _, _, info = env.step(action)
        actions.append(action)
        rewards.append(reward)
        success.append(info["is_success"])
        observe()
    tiled = np.stack(frames).reshape(steps + 1, env.image_size[0], len(env.cameras), -1, 3)
    extrinsics = np.stack(cameras)  # (T, cameras, 6)
    return Episode(
        frames={name: tiled[:, :, index] for index, name in enumerate(env.cameras)},
        states=np.stack(states),
        extrinsics={name: extrinsics[:, index] for index, name in enumerate(env.cameras)},
        actions=np.stack(actions),
        rewards=np.array(rewards),
        success=np.array(success),
        sim_state=np.stack(physics),
        timestamps_s=np.arange(steps + 1) * env.step_s,
        metadata={"step_s": env.step_s, "kind": kind, "object": env.obj, "seed": seed},
    )
