"""Real environments with the spaces of `JEPALatent-v0`, so that one policy runs in both unchanged.

They work on every environment that observes `pixels`, `goal_pixels` and the state `observation`.
Rewards, ends and infos are those of the real environment.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from jepa_gym import TASKS
from jepa_gym.latent.action_sets import ActionSet
from jepa_gym.latent.spaces import observation_space
from jepa_gym.world_model import WorldModel

NEEDED = ("observation", "pixels", "goal_pixels")
NO_REWARD = (
    "the reward of this wrapper is the real environment's, which is not a function of latents; "
    "relabel goals in JEPALatent-v0 or in the wrapped environment"
)


class GoalEncoder:
    """Encodes the frames of n environments in one batch, and goal images only when they change.

    A batch always has n frames, so that an environment's latent does not depend on which of the
    others changed their goal.
    """

    def __init__(self, model: WorldModel, count: int) -> None:
        self.model = model
        shape = (count, model.config.num_tokens, model.config.encoder.latent_dim)
        self._goals = np.zeros(shape, np.float32)
        self._images: np.ndarray | None = None
        self.goal_batches = 0
        """How often goal images were encoded."""

    def observe(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the latent observations (n, ...) of real ones (n, ...)."""
        images = observation["goal_pixels"]
        changed = np.ones(len(images), bool)
        if self._images is not None:
            changed = (images != self._images).any((1, 2, 3))
        if changed.any():
            self._goals[changed] = self._encode(images)[changed]
            self._images = np.array(images)
            self.goal_batches += 1
        return {
            "observation": np.array(observation["observation"], np.float32),
            "achieved_goal": self._encode(observation["pixels"]),
            "desired_goal": self._goals.copy(),
        }

    def _encode(self, frames: np.ndarray) -> np.ndarray:
        return self.model.encode(frames[:, None])[:, 0].cpu().numpy()


class LatentObservation(gym.Wrapper, RecordConstructorArgs):
    """Observe latents in the place of pictures and goals, as in `JEPALatent-v0`.

    Args:
        env: A real environment that shows what the model was trained on:
            `gym.make(..., **model.config.frame.env_kwargs())`.
        model: The world model that encodes.
        action_set: As of `JEPALatent-v0`: `xyz`, `xyz+gripper` or `all`.
        rescale_actions: As of `JEPALatent-v0`: whether actions are in [-1, 1].

    Raises:
        ValueError: The environment lacks an observation, shows frames of another size, or has other
            actions than the model.
    """

    def __init__(
        self,
        env: gym.Env,
        model: WorldModel,
        action_set: str = "all",
        rescale_actions: bool = False,
    ) -> None:
        actions = {"action_set": action_set, "rescale_actions": rescale_actions}
        RecordConstructorArgs.__init__(self, model=model, **actions, _disable_deepcopy=True)
        gym.Wrapper.__init__(self, env)
        self._actions = ActionSet(model.config.action_bounds, action_set, rescale_actions)
        _check_convention(env, model)
        _check(env.observation_space, env.action_space, model, self._actions)
        self.observation_space = observation_space(model.config)
        self.action_space = self._actions.space
        self._encoder = GoalEncoder(model, 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reset the real environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observe(observation), info

    def step(self, action: np.ndarray):
        """Step the real environment."""
        observation, *rest = self.env.step(self._actions.physical(action))
        return self._observe(observation), *rest

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> float:
        """Raise a NotImplementedError: the real reward is no function of latents."""
        raise NotImplementedError(NO_REWARD)

    def _observe(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        batch = {key: observation[key][None] for key in NEEDED}
        return {key: value[0] for key, value in self._encoder.observe(batch).items()}


class VectorLatentObservation(VectorWrapper):
    """`LatentObservation` for vector environments; all frames are encoded in one batch.

    Both automatic resets work: `final_obs` holds latents as well.

    Args:
        env: A vector environment of such environments.
        model: The world model that encodes.
        action_set: As of `JEPALatent-v0`: `xyz`, `xyz+gripper` or `all`.
        rescale_actions: As of `JEPALatent-v0`: whether actions are in [-1, 1].

    Raises:
        ValueError: As `LatentObservation`.
    """

    def __init__(
        self,
        env: VectorEnv,
        model: WorldModel,
        action_set: str = "all",
        rescale_actions: bool = False,
    ) -> None:
        super().__init__(env)
        self._actions = ActionSet(model.config.action_bounds, action_set, rescale_actions)
        _check_convention(env, model)
        _check(env.single_observation_space, env.single_action_space, model, self._actions)
        self.single_observation_space = observation_space(model.config)
        self.single_action_space = self._actions.space
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.action_space = batch_space(self.single_action_space, env.num_envs)
        self._encoder = GoalEncoder(model, env.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Reset the real environments."""
        seeds: Any = seed  # Gymnasium's types forget the list
        observation, infos = self.env.reset(seed=seeds, options=options)
        return self._encoder.observe(observation), infos

    def step(self, actions: np.ndarray):
        """Step the real environments."""
        moves = self._actions.physical(actions, self.num_envs)
        observation, *rest, infos = self.env.step(moves)
        if self.metadata.get("autoreset_mode") is AutoresetMode.SAME_STEP and "final_obs" in infos:
            infos = infos | {"final_obs": self._final(observation, infos["final_obs"])}
        return self._encoder.observe(observation), *rest, infos

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> np.ndarray:
        """Raise a NotImplementedError: the real reward is no function of latents."""
        raise NotImplementedError(NO_REWARD)

    def _final(self, observation: dict[str, np.ndarray], final: np.ndarray) -> np.ndarray:
        """Return the last observations of the episodes that ended, None elsewhere."""
        ended = [row for row, last in enumerate(final) if last is not None]
        batch = {key: np.array(observation[key]) for key in NEEDED}
        for row in ended:
            for key in NEEDED:
                batch[key][row] = final[row][key]
        latent = self._encoder.observe(batch)
        found = np.full(len(final), None, dtype=object)
        for row in ended:
            found[row] = {key: value[row].copy() for key, value in latent.items()}
        return found


def _check_convention(env: gym.Env | VectorEnv, model: WorldModel) -> None:
    """Raise a ValueError if states are the pose of something else than in the model's training."""
    wanted = model.config.frame.state_convention
    spec = env.spec or getattr(env.unwrapped, "envs", [env])[0].spec  # of vectors made by hand
    if spec is None or spec.id not in TASKS.values():
        return  # not of the suite: what its states are is not known
    given = spec.kwargs.get("state_convention", "hand")
    if given != wanted:
        raise ValueError(
            f"the states of this model have the convention {wanted!r}, the environment's "
            f"{given!r}; make the environment with jepa_gym.make_env(model, task)"
        )


def _check(
    observation: spaces.Space, action: spaces.Space, model: WorldModel, actions: ActionSet
) -> None:
    """Raise a ValueError unless the spaces are those of the model's real environments."""
    config = model.config
    advice = "; make the environment with gym.make(..., **model.config.frame.env_kwargs())"
    entries = observation.spaces if isinstance(observation, spaces.Dict) else {}
    missing = [key for key in NEEDED if key not in entries]
    if missing:
        raise ValueError(f"the environment observes {list(entries)}, it lacks {missing}{advice}")
    frame = (config.frame.height, config.frame.width, 3)
    for key in ("pixels", "goal_pixels"):
        pixels = entries[key]
        if pixels.shape != frame or pixels.dtype != np.uint8:
            raise ValueError(
                f"`{key}` must be {frame} uint8 for this model, the environment's is "
                f"{pixels.shape} {pixels.dtype}{advice}"
            )
    allowed = actions.physical_space
    if not isinstance(action, spaces.Box) or action != allowed:
        raise ValueError(f"the actions of this model are {allowed}, not {action}{advice}")
