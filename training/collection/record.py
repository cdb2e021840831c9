"""Play one episode, of the suite or of any environment, and keep everything of it."""

from __future__ import annotations

import importlib
import json
import math
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from jepa_gym.envs.pictures.rendering import parse_cameras
from jepa_gym.names import check_choice
from jepa_gym.training.collection.adapter import Adapter
from jepa_gym.training.collection.config import CollectConfig
from jepa_gym.training.collection.explorers import DEFAULT_MIX, exploration_env
from jepa_gym.training.collection.robosuite_adapter import RobosuiteAdapter
from jepa_gym.training.collection.suite_adapter import SuiteAdapter
from jepa_gym.training.data.episodes import Episode


def record_episode(
    adapter: Adapter, seed: int, steps: int, behaviours: dict[str, float]
) -> Episode:
    """Play and return one episode.

    Args:
        adapter: What is recorded.
        seed: Decides the whole episode.
        steps: Moves; the episode has one frame more. It is shorter if it ends by itself.
        behaviours: Behaviour -> its weight.

    Returns:
        The episode, with rewards and what else the adapter knows. Actions that are none of 7
        numbers stand in the metadata as `native_actions`.
    """
    kind, policy = adapter.begin(seed, behaviours)
    moments = [adapter.look()]
    actions, commands, rewards, success = [], [], [], []
    ended = False
    for step in range(steps):
        action = policy(step)
        commands.append(adapter.command(action))  # before it acts: it may depend on the state
        reward, succeeded, ended = adapter.act(action)
        actions.append(action)
        rewards.append(reward)
        success.append(succeeded)
        moments.append(adapter.look())
        if ended:
            break
    physics = [moment.physics for moment in moments if moment.physics is not None]
    known = [command for command in commands if command is not None]
    metadata = {"step_s": adapter.step_s, "kind": kind, "seed": seed} | adapter.metadata()
    if len(known) < len(actions):
        metadata["native_actions"] = [np.asarray(action).tolist() for action in actions]
    if ended:
        metadata["ended_early"] = len(actions) < steps
    return Episode(
        frames={name: np.stack([m.frames[name] for m in moments]) for name in adapter.cameras},
        states=np.stack([moment.state for moment in moments]),
        extrinsics={
            name: np.stack([m.extrinsics[name] for m in moments]) for name in moments[0].extrinsics
        },
        actions=np.stack(known) if len(known) == len(actions) else None,
        rewards=np.array(rewards),
        success=np.array(success),
        sim_state=np.stack(physics) if len(physics) == len(moments) else None,
        timestamps_s=np.arange(len(moments)) * adapter.step_s,
        metadata=metadata,
    )


def check_environment(config: CollectConfig) -> tuple[str, ...]:
    """Make an environment that is none of the suite once, and compare it with the settings.

    Args:
        config: The collection.

    Returns:
        The names of its cameras.

    Raises:
        ValueError: If the environment has other views or steps than the settings, knows no such
            behaviour, or cannot be recorded.
    """
    if config.env is None:
        return parse_cameras(config.camera)
    adapter = _foreign_adapter(config)
    try:
        wrong = []
        if "+".join(adapter.cameras) != config.camera:
            wrong.append(f"--camera {'+'.join(adapter.cameras)}")
        if not math.isclose(adapter.step_s, config.step_s):
            wrong.append(f"--step-s {adapter.step_s:g}")
        if wrong:
            raise ValueError(f"to record {config.env}, give {' '.join(wrong)}: that is what it has")
        for name in config.behaviours or ():
            check_choice("behaviour", name, adapter.behaviours)
        adapter.begin(config.seed, config.mix(adapter.behaviours))
        adapter.look()
    finally:
        adapter.env.close()
    return adapter.cameras


def recorded(config: CollectConfig, seed: int) -> Episode:
    """Return the episode of a seed, which is decided by the settings and the seed alone."""
    adapter = _adapter(_Key(config, config.object_of(seed)))
    weights = config.mix(DEFAULT_MIX if config.env is None else adapter.behaviours)
    return record_episode(adapter, seed, config.steps, weights)


class _Key:
    """The settings of an environment, compared by what they say."""

    def __init__(self, config: CollectConfig, obj: str | None) -> None:
        self.config, self.obj = config, obj
        self._text = json.dumps([config.settings(), obj])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=1)
def _adapter(key: _Key) -> Adapter:
    """Return what this process records; it is made anew when the object changes."""
    config = key.config
    if config.env is not None:
        return _foreign_adapter(config)
    env = exploration_env(config.task, obj=key.obj, split=config.split, **_frame(config))
    return SuiteAdapter(env, config.image_size)


def _frame(config: CollectConfig) -> dict[str, Any]:
    names = ("camera", "image_size", "step_s", "max_move_m")
    return {name: getattr(config, name) for name in names}


def _foreign_adapter(config: CollectConfig) -> Adapter:
    """Return the adapter of an environment that is none of the suite.

    Raises:
        ValueError: If there is no such environment or adapter.
    """
    assert config.env is not None
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # an adapter beside the data, when the command itself is elsewhere
    kind = Adapter
    if config.adapter is not None:
        kind = _imported(config.adapter)
    elif config.env.rpartition(":")[2].startswith("robosuite/"):
        kind = RobosuiteAdapter
    try:
        env = kind.make(config.env, _frame(config), **config.env_arguments())
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"cannot make the environment {config.env!r}: {error}") from error
    return kind(env, config.image_size)


def _imported(name: str) -> type[Adapter]:
    module, _, attribute = name.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot import the adapter {name!r}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Adapter)):
        raise ValueError(f"{name!r} is no subclass of `Adapter`, but {kind!r}")
    return kind
