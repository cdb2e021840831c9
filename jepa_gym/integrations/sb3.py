"""Stable-Baselines3 on the vector environments of this package.

Stable-Baselines3 has a vector environment of its own kind (`VecEnv`), and refuses Gymnasium's. Its
`make_vec_env` therefore makes single environments: 64 of `JEPALatent-v0` are then 64 calls of the
predictor for a step. `make_vec_env` here gives it the one batched predictor, or the processes of
the real suite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from torch import nn

import jepa_gym  # noqa: F401  (registers the environments)

LATENTS = ("achieved_goal", "desired_goal")
STATE = "observation"


def make_vec_env(
    env_id: str, n_envs: int = 1, seed: int | None = None, monitor: bool = True, **kwargs: Any
) -> VecEnv:
    """Make a vector environment for the algorithms of Stable-Baselines3.

    Args:
        env_id: `JEPALatent-v0`, which loads the model once and imagines all episodes in one batch,
            or a task of the suite, which runs one process per environment.
        n_envs: Number of environments.
        seed: Seeds environment i with seed + i at the first reset; None draws.
        monitor: Count returns and lengths of episodes (`VecMonitor`), which the logs and
            `EvalCallback` of Stable-Baselines3 look for.
        **kwargs: Arguments of `gym.make_vec(env_id)`.

    Returns:
        The environment.

    Raises:
        ValueError: If the environment is unknown or has no vector environment of its own, or an
            argument is outside its values.
    """
    try:
        spec = gym.spec(env_id)
    except gym.error.Error as error:
        raise ValueError(f"There is no environment `{env_id}`: {error}") from error
    if spec.vector_entry_point is None:
        raise ValueError(
            f"`{env_id}` has no vector environment of its own; "
            "stable_baselines3.common.env_util.make_vec_env makes one of single environments"
        )
    if "autoreset_mode" in kwargs:
        raise ValueError(
            "`autoreset_mode` is not to be chosen: Stable-Baselines3 wants the first frame of the "
            "next episode from the step that ends one"
        )
    made = gym.make_vec(spec, num_envs=n_envs, autoreset_mode="same_step", **kwargs)
    env: VecEnv = GymnasiumVecEnv(made)
    if monitor:
        env = VecMonitor(env)
    if seed is not None:
        env.seed(seed)
    return env


class GymnasiumVecEnv(VecEnv):
    """A vector environment of Gymnasium as one of Stable-Baselines3.

    An episode's last observation is in `info["terminal_observation"]` and what else was told of its
    last step in that `info`, as Stable-Baselines3 has it; `info["TimeLimit.truncated"]` says
    whether it was cut off. Attributes and methods (`get_attr`, `env_method`) are those of each
    environment where each has a process, else of the one that holds them all: it is asked once, and
    its answer stands for every index.

    Args:
        env: Resets at the end of an episode, in the same step (`AutoresetMode.SAME_STEP`).

    Raises:
        ValueError: If it resets otherwise.
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                "Stable-Baselines3 wants the first frame of the next episode from the step that "
                f"ends one: make the environment with autoreset_mode='same_step', not {mode}"
            )
        self.env: Any = env  # what it offers beyond Gymnasium's interface differs by kind
        self.metadata = env.metadata
        self._actions: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Any:
        """Start all episodes, with the seeds and options that were set for this reset.

        Returns:
            Observations, each entry (n_envs, ...).

        Raises:
            ValueError: If environments were given options of their own.
        """
        options, seeds = self._options[0], self._seeds
        if any(own is not options and own != options for own in self._options):
            raise ValueError("`set_options` takes one dictionary for all environments here")
        seeded = all(seed is not None for seed in seeds)
        observation, infos = self.env.reset(
            seed=list(seeds) if seeded else None, options=options or None
        )
        self.reset_infos = [_info_of(infos, index) for index in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (n_envs, ...) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all environments.

        Returns:
            Observations, each entry (n_envs, ...), rewards (n_envs,) float32, whether episodes
            ended (n_envs,) bool, and the infos.
        """
        observation, rewards, terminated, truncated, batched = self.env.step(self._actions)
        dones = terminated | truncated
        infos = []
        for index, done in enumerate(dones):
            info = _info_of(batched, index)
            if done:
                last, first = info.pop("final_info"), info.pop("final_obs")
                info = last | {"terminal_observation": first}
            info["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
            infos.append(info)
        return observation, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return a picture (Y, X, 3) uint8 of each environment, or None without a `render_mode`."""
        pictures = self._ask("render")
        if isinstance(pictures, (tuple, list)):
            return list(pictures)
        return [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each of the environments `indices`."""
        if hasattr(self.env, "get_attr"):
            values = self.env.get_attr(attr_name)
            return [values[index] for index in self._get_indices(indices)]
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all environments.

        Raises:
            ValueError: If `indices` are not all of them.
        """
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(f"`{attr_name}` can be set for all {self.num_envs} environments only")
        if hasattr(self.env, "set_attr"):
            self.env.set_attr(attr_name, value)
        else:
            setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each of the environments `indices`, and of no other.

        `HerReplayBuffer` asks one environment for the rewards of a batch.
        """
        wanted = list(self._get_indices(indices))
        if hasattr(self.env, "call_one"):
            return [
                self.env.call_one(index, method_name, *method_args, **method_kwargs)
                for index in wanted
            ]
        answer = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [answer for _ in wanted]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """Return False for each of the environments `indices`: no wrapper can be seen from here."""
        return [False for _ in self._get_indices(indices)]

    def _ask(self, name: str) -> Any:
        if hasattr(self.env, "call"):
            return self.env.call(name)
        return getattr(self.env, name)()


def _info_of(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """Return what a vector environment's infos tell of one environment.

    Gymnasium marks who told an entry `key` in a boolean array `_key`.
    """
    own = {}
    for key, value in infos.items():
        told = infos.get(f"_{key}")
        if told is None or not told[index]:
            continue
        own[key] = _info_of(value, index) if isinstance(value, Mapping) else value[index]
    return own


class LatentExtractor(BaseFeaturesExtractor):
    """Features of latents (N, D) for policies of Stable-Baselines3.

    Every token of the frame's and of the goal's latent becomes `width` numbers by one linear map,
    and so does every token of their difference, which is small near the goal; the state is joined
    as it is. `PPO("MultiInputPolicy", env, policy_kwargs={"features_extractor_class":
    LatentExtractor})`. The default, `CombinedExtractor`, works as well and flattens the latents.

    Args:
        observation_space: That of `JEPALatent-v0`: a `Dict` with `achieved_goal` and
            `desired_goal` (N, D) and `observation` (7,).
        width: Numbers per token.

    Raises:
        ValueError: If it is another space.
    """

    def __init__(self, observation_space: spaces.Space, width: int = 16) -> None:
        entries = getattr(observation_space, "spaces", None)
        shapes = {key: box.shape for key, box in entries.items()} if entries else {}
        latents = [shapes.get(key, ()) for key in LATENTS]
        if STATE not in shapes or latents[0] != latents[1] or len(latents[0]) != 2:
            raise ValueError(
                f"`LatentExtractor` needs {', '.join(LATENTS)} (N, D) and {STATE} in a Dict space, "
                f"got {observation_space}"
            )
        tokens, dim = latents[0]
        super().__init__(observation_space, 3 * tokens * width + shapes[STATE][0])
        self.maps = nn.ModuleList([nn.Linear(dim, width) for _ in range(3)])
        self.norm = nn.LayerNorm(3 * tokens * width)

    def forward(self, observations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return features (B, F) of observations, each entry (B, ...)."""
        here, goal = (observations[key] for key in LATENTS)
        parts = [
            own(latents).flatten(1)
            for own, latents in zip(self.maps, (here, goal, goal - here), strict=True)
        ]
        return torch.cat([self.norm(torch.cat(parts, 1)), observations[STATE]], 1)
