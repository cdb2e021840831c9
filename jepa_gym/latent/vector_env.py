"""JEPALatent-v0 as a vector environment: one batched predictor, no processes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.checkpoint.start_frames import StartFrames
from jepa_gym.latent.env import JEPALatentEnv, check_render_mode
from jepa_gym.latent.episodes import LatentEpisodes, load_model
from jepa_gym.latent.rendering import Decoder, draw
from jepa_gym.latent.starts import split_options
from jepa_gym.world_model import WorldModel

AUTORESET_MODES = {"next_step": AutoresetMode.NEXT_STEP, "same_step": AutoresetMode.SAME_STEP}


class JEPALatentVectorEnv(VectorEnv):
    """`num_envs` episodes of `JEPALatent-v0`, each as a single environment would play it.

    Made by `gym.make_vec("JEPALatent-v0", num_envs=n)`. `reset(seed=s)` seeds environment i with
    s + i, a list each with its own. Options hold for all environments, or, with one dimension more,
    one entry for each.

    Args:
        num_envs: Number of episodes, at least 1.
        max_episode_steps: Steps after which an episode is truncated, or None.
        autoreset_mode: What follows the end of an episode. `"next_step"`: the next `step` ignores
            the action and returns the reset's observation with reward 0. `"same_step"`: the same
            `step` returns it, and `info` carries `final_obs` and `final_info`. An automatic reset
            has no options.

    The other arguments are those of `JEPALatentEnv`.

    Raises:
        ValueError: An argument outside the allowed values, which the message names.
        CheckpointError, FileNotFoundError: No checkpoint or no start frames.
    """

    metadata = JEPALatentEnv.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int | None = 10,
        autoreset_mode: str = "next_step",
        checkpoint: str | Path = "default",
        model: WorldModel | None = None,
        reward: str = "energy",
        clip_actions: bool = False,
        render_mode: str | None = None,
        starts: str = "checkpoint",
        data: StartFrames | Mapping[str, Any] | str | Path | None = None,
        max_ood: float | None = None,
        context_frames: int | None = None,
        dtype: str = "float32",
        device: str | None = None,
        decoder: Decoder | None = None,
        action_set: str = "all",
        rescale_actions: bool = False,
    ) -> None:
        if not isinstance(num_envs, int) or num_envs < 1:
            raise ValueError(f"`num_envs` must be an int, 1 or more, got {num_envs!r}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(
                f"`max_episode_steps` must be None or 1 or more, got {max_episode_steps!r}"
            )
        if autoreset_mode not in AUTORESET_MODES:
            raise ValueError(
                f"`autoreset_mode` must be one of {tuple(AUTORESET_MODES)}, got {autoreset_mode!r}"
            )
        check_render_mode(render_mode)
        self.model = load_model(checkpoint, model, device)
        self._episodes = LatentEpisodes(
            self.model,
            num_envs,
            starts=starts,
            data=data,
            reward=reward,
            clip_actions=clip_actions,
            max_ood=max_ood,
            context_frames=context_frames,
            dtype=dtype,
            action_set=action_set,
            rescale_actions=rescale_actions,
        )
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.autoreset_mode = AUTORESET_MODES[autoreset_mode]
        self.metadata = self.metadata | {"autoreset_mode": self.autoreset_mode}
        self.render_mode, self.decoder = render_mode, decoder
        self.single_observation_space = self._episodes.observation_space
        self.single_action_space = self._episodes.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._all = np.arange(num_envs)
        self._over = np.zeros(num_envs, bool)
        self._random: list[np.random.Generator] = []

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start all episodes.

        Args:
            seed: `s` seeds environment i with s + i; or one int or None for each.
            options: As for `JEPALatentEnv.reset`, for all environments or for each.

        Raises:
            ValueError, TypeError: A wrong number of seeds, or a bad option.
        """
        self._check_open()
        if seed is None or isinstance(seed, int | np.integer):
            seed = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(
                f"`seed` must be one int or {self.num_envs} of them, got {len(seed)} seeds"
            )
        known = self._random or [None] * self.num_envs
        self._random = [
            seeding.np_random(own)[0] if last is None or own is not None else last
            for own, last in zip(seed, known, strict=True)
        ]
        self._reset(self._all, split_options(options, self.num_envs))
        self._over = np.zeros(self.num_envs, bool)
        return self._episodes.observation(self._all), self._infos({}, self._all)

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Imagine one step of each episode; those that ended before may be reset instead.

        Args:
            actions: (num_envs, 7) physical units, or as `action_set` and `rescale_actions` say.

        Raises:
            ValueError: The actions have the wrong shape, or one is not finite or out of bounds;
                nothing has happened then.
            RuntimeError: Before the first reset.
        """
        self._check_open()
        episodes, given = self._episodes, np.array(actions)
        if self._over.any() and given.shape == self.action_space.shape:
            given[self._over] = 0  # not looked at
        moves = episodes.physical(given, self.num_envs)
        rows, ended = np.flatnonzero(~self._over), np.flatnonzero(self._over)
        rewards, truncated = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        if len(rows):
            truncated[rows] = episodes.step(rows, moves[rows])
            rewards[rows] = episodes.rewards(rows)
            if self.max_episode_steps is not None:
                truncated[rows] |= episodes.steps(rows) >= self.max_episode_steps
        if len(ended):
            self._reset(ended, [{}] * len(ended))
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._over = truncated.copy()
        elif truncated.any():
            infos = self._finish(np.flatnonzero(truncated))
        infos = self._infos(infos, self._all)
        observation = episodes.observation(self._all)
        return observation, rewards, np.zeros(self.num_envs, bool), truncated, infos

    def compute_reward(
        self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any
    ) -> np.ndarray | float:
        """Return the rewards (...) of latents (..., N, D); see `JEPALatentEnv.compute_reward`."""
        return self._episodes.reward(achieved_goal, desired_goal, info)

    def get_state(self) -> dict[str, Any]:
        """Return everything the episodes' future depends on; `set_state` takes it back."""
        random = [copy.deepcopy(own.bit_generator.state) for own in self._random]
        return {
            "episodes": self._episodes.get_state(),
            "over": self._over.copy(),
            "random": random,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of `get_state`.

        Raises:
            ValueError: If it is another environment's.
        """
        self._episodes.set_state(state["episodes"])
        self._over = state["over"].copy()
        self._random = [seeding.np_random(0)[0] for _ in state["random"]]
        for random, own in zip(self._random, state["random"], strict=True):
            random.bit_generator.state = copy.deepcopy(own)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return a picture of each episode, see `JEPALatentEnv`; None without a `render_mode`."""
        if self.render_mode is None:
            return None
        self.decoder = self.decoder or DECODER.own(self.model)
        return tuple(draw(self._episodes, range(self.num_envs), self.decoder))

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environment that starts come from, if there is one."""
        if hasattr(self, "_episodes"):  # Gymnasium closes what could not be made, too
            self._episodes.source.close()

    def _reset(self, rows: np.ndarray, options: Sequence[Mapping[str, Any]]) -> None:
        """Start the episodes `rows` (k,), each with its options and its random generator."""
        starts = [
            self._episodes.start(row, own, self._random[row])
            for row, own in zip(rows, options, strict=True)
        ]
        self._episodes.reset(rows, starts)

    def _finish(self, rows: np.ndarray) -> dict[str, Any]:
        """Reset the episodes `rows` (k,) that ended; return their last observations and infos."""
        last = self._episodes.observation(rows)
        infos: dict[str, Any] = {}
        for place, (row, info) in enumerate(zip(rows, self._episodes.info(rows), strict=True)):
            observation = {key: value[place] for key, value in last.items()}
            final = {"final_obs": observation, "final_info": info}
            infos = self._add_info(infos, final, row)
        self._reset(rows, [{}] * len(rows))
        return infos

    def _infos(self, infos: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
        for row, info in zip(rows, self._episodes.info(rows), strict=True):
            infos = self._add_info(infos, info, row)
        return infos

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this vector environment was closed; make a new one")
