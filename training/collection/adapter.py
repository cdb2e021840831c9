"""`Adapter`: how any Gymnasium environment is recorded, in states, actions, pictures and time.

A dataset holds, at equal steps of time, states of 7 numbers (x y z in m, roll pitch yaw in rad as
extrinsic xyz Euler angles, closedness of a gripper from 0 open to 1 closed) and pictures; what a
model learns as an action is the difference of two states. An environment that observes such a
state as `observation` and a picture, or draws one, needs no adapter of its own; for any other one
write a subclass, in which `state` is mostly all there is to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box

from jepa_gym.preprocess import droid_crop

Policy = Callable[[int], np.ndarray]
"""Step -> action of the environment."""
MEMORY = 0.6
"""How much of a random move goes on in the next one, in half of the episodes."""


@dataclass
class Moment:
    """What is recorded of one moment."""

    frames: dict[str, np.ndarray]
    """Camera -> (Y, X, 3) uint8 RGB, upright."""
    state: np.ndarray
    """(7,): m, rad, closedness."""
    extrinsics: dict[str, np.ndarray] = field(default_factory=dict)
    """Camera -> (6,), as in `jepa_gym.training.data.episodes`; none where they are not known."""
    physics: np.ndarray | None = None
    """(n,), the simulator's full state, where it is known."""


class Adapter:
    """An environment as the collector sees it; override what your environment does otherwise.

    This is `--adapter MODULE:CLASS` of `jepa-gym collect`, for an environment `--env ID`. A point
    that is moved in a plane, for instance, is a hand that neither rises, turns nor closes::

        import numpy as np
        from jepa_gym.training.collection.adapter import Adapter

        class PointAdapter(Adapter):
            step_s = 0.1        # seconds of one step
            cameras = ("top",)  # name of the picture

            def state(self, observation, info):
                x, y = observation
                return np.array([x, y, 0, 0, 0, 0, 0])

    Args:
        env: The environment, as `make` made it.
        image_size: Height and width in pixels that pictures get.
    """

    cameras: tuple[str, ...] = ("left",)
    """Names of the views that a picture tiles from left to right."""
    step_s: float = 0.0
    """Seconds of one step; by default the environment's `step_s`, or 1 / `render_fps`."""
    behaviours: dict[str, float] = {"random": 1.0}
    """Who can act -> the share of the episodes by default."""

    def __init__(self, env: gym.Env, image_size: int) -> None:
        self.env, self.image_size = env, image_size
        self._observation: Any = None
        self._info: dict[str, Any] = {}
        if not self.step_s:
            rate = float(env.metadata.get("render_fps") or 0)
            self.step_s = float(getattr(env.unwrapped, "step_s", 1 / rate if rate else 0))
        if not self.step_s > 0:
            raise ValueError(
                f"nobody knows how many seconds a step of {env.spec and env.spec.id} takes: write "
                "an adapter with `step_s` and name it by --adapter MODULE:CLASS"
            )

    # ---- to be overridden

    @classmethod
    def make(cls, env_id: str, frame: dict[str, Any], **kwargs: Any) -> gym.Env:
        """Make the environment, without a limit of steps.

        Args:
            env_id: Its id, `--env`.
            frame: `camera`, `image_size`, `step_s` and `max_move_m` of the collection, for
                environments that can be asked for them; the base class leaves them alone.
            **kwargs: Arguments of `gym.make`, `--env-kwargs`.
        """
        options: dict[str, Any] = {"render_mode": "rgb_array"} | kwargs
        return gym.make(env_id, max_episode_steps=-1, disable_env_checker=True, **options)

    def state(self, observation: Any, info: dict[str, Any]) -> np.ndarray:
        """Return the state (7,): x y z (m), roll pitch yaw (rad), closedness of the gripper.

        By default it is the observation, or its entry `observation`, if that has 7 numbers.
        """
        found = observation["observation"] if isinstance(observation, dict) else observation
        if np.shape(found) != (7,):
            raise ValueError(
                f"{self.env.spec and self.env.spec.id} observes no state of 7 numbers (m, rad, "
                "closedness): write an adapter with `state`, see "
                "`jepa_gym.training.collection.adapter`, and name it by --adapter MODULE:CLASS"
            )
        return np.asarray(found, np.float64)

    def picture(self, observation: Any) -> np.ndarray:
        """Return all views side by side, (Y, X, 3) uint8 RGB, upright.

        By default it is the observation's entry `pixels`, or what `render` returns.
        """
        if isinstance(observation, dict) and "pixels" in observation:
            return np.asarray(observation["pixels"])
        return np.asarray(self.env.render())

    def command(self, action: np.ndarray) -> np.ndarray | None:
        """Return an action of the environment as one of the contract, (7,), or None.

        It is recorded as what was commanded. By default actions of 7 numbers are taken for that.
        """
        return action if np.shape(action) == (7,) else None

    def policy(self, behaviour: str, rng: np.random.Generator) -> Policy:
        """Return who acts in an episode that has just started.

        By default actions are drawn from the action space, in half of the episodes with a memory of
        the one before.

        Args:
            behaviour: One of `behaviours`.
            rng: What it may draw from.
        """
        space = self.env.action_space
        if not isinstance(space, Box) or not space.is_bounded():
            raise ValueError(
                f"actions can be drawn from a bounded Box, not from {space}: write an adapter with "
                "`policy` and name it by --adapter MODULE:CLASS"
            )
        memory = MEMORY if rng.random() < 0.5 else 0.0
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        last = centre = (low + high) / 2

        def act(step: int) -> np.ndarray:
            nonlocal last
            last = memory * last + (1 - memory) * rng.uniform(low, high)
            wide = centre + (last - centre) / max(0.5, 1 - memory)
            return np.clip(wide, low, high).astype(space.dtype)

        return act

    def extrinsics(self) -> dict[str, np.ndarray]:
        """Return the cameras' poses now, camera -> (6,), or none."""
        return {}

    def physics(self) -> np.ndarray | None:
        """Return the simulator's full state (n,), or None."""
        return None

    def metadata(self) -> dict[str, Any]:
        """Return what the metadata of an episode shall tell beside the usual, as JSON."""
        return {}

    # ---- what the collector calls

    def begin(self, seed: int, behaviours: dict[str, float]) -> tuple[str, Policy]:
        """Start an episode and draw who acts in it.

        Args:
            seed: Decides the episode.
            behaviours: Behaviour -> its weight.

        Returns:
            The behaviour and its policy.
        """
        self._observation, self._info = self.env.reset(seed=seed)
        rng = np.random.default_rng([seed, 1])  # the environment's own must not be shared
        behaviour = draw_behaviour(rng, self.behaviours, behaviours)
        return behaviour, self.policy(behaviour, rng)

    def look(self) -> Moment:
        """Return the present moment.

        Raises:
            ValueError: State or picture have a wrong shape or type.
        """
        state = np.asarray(self.state(self._observation, self._info), np.float64)
        if state.shape != (7,):
            raise ValueError(f"{type(self).__name__}.state must return (7,), got {state.shape}")
        return Moment(self._views(), state, self.extrinsics(), self.physics())

    def act(self, action: np.ndarray) -> tuple[float, bool, bool]:
        """Take one step; return reward, success, and whether the episode has ended by itself."""
        self._observation, reward, ended, _, self._info = self.env.step(action)
        success = self._info.get("is_success", self._info.get("success", False))
        return float(reward), bool(success), bool(ended)

    def _views(self) -> dict[str, np.ndarray]:
        picture = self.picture(self._observation)
        count = len(self.cameras)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture must be (Y, X, 3) uint8, that of {self.env.spec and self.env.spec.id} "
                f"is {picture.shape} {picture.dtype}: write an adapter with `picture`, or have the "
                "environment made with a render mode"
            )
        if picture.shape[1] % count:
            raise ValueError(f"a picture {picture.shape} does not tile {count} views of equal size")
        tiles = torch.from_numpy(np.stack(np.split(picture, count, axis=1)))
        if tuple(tiles.shape[1:3]) != (self.image_size, self.image_size):
            tiles = droid_crop(tiles[None], self.image_size)[0].round().to(torch.uint8)
        return dict(zip(self.cameras, tiles.numpy(), strict=True))


def draw_behaviour(
    rng: np.random.Generator, known: Iterable[str], weights: Mapping[str, float]
) -> str:
    """Draw one behaviour by weight, the same whatever order the weights are given in."""
    names = [name for name in known if name in weights]
    shares = np.array([weights[name] for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))
