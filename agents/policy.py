"""Trained policies: our own files, which run no code, and those of Stable-Baselines3, which may.

A policy that `jepa-gym train-rl` writes is a safetensors file with its sizes as JSON in the
metadata; it acts without Stable-Baselines3. A zip of Stable-Baselines3 holds pickled Python
objects, and unpickling runs whatever code their maker put there, so such a file is opened only if
`allow_pickle` says so.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces

import jepa_gym
from jepa_gym.agents.base import ACTION_DIM, Agent
from jepa_gym.checkpoint.beside import encoder_hash
from jepa_gym.checkpoint.safetensors_file import read_safetensors, write_safetensors
from jepa_gym.world_model import WorldModel

OWN_SUFFIX, FOREIGN_SUFFIX = ".safetensors", ".zip"
SIZES = "policy"
"""Key of the JSON in the metadata."""
SHIPPED = Path(jepa_gym.__file__).parent / "assets" / "policies"
"""Policies that come with the package."""
LOG_STD_RANGE = (-20.0, 2.0)
"""What Stable-Baselines3 clamps the logarithm of the standard deviation to."""


class _Policy(Protocol):
    """What `PolicyAgent` asks; Stable-Baselines3's algorithms are such, too."""

    observation_space: Any

    def predict(self, observation: Any, state: Any, episode_start: Any, deterministic: bool) -> Any:
        """Return actions (B, 7) and the next state."""


class SquashedGaussian:
    """An actor of Stable-Baselines3: a multilayer perceptron, tanh, and action bounds.

    SAC's draws from a normal distribution unless it is asked to be deterministic; those of the
    other algorithms, whose weights have no `log_std`, never draw.

    Args:
        tensors: Its weights, by the names that Stable-Baselines3 gives those of SAC.
        sizes: `observation` (entry -> width or shape, in the order in which they are joined),
            `action_low` and `action_high`, the bounds; where it chooses less than a whole action,
            `dimensions`, which of its numbers, the others being zero; where they are not those of
            SAC, `activation` (`tanh`) and `squash` (false: its numbers are clipped to [-1, 1]).
        seed: Seed of the draws when it is not asked to be deterministic.

    Raises:
        ValueError: If weights and sizes disagree.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], sizes: Mapping[str, Any], seed: int = 0
    ) -> None:
        self._tensors, self._keys = dict(tensors), list(sizes["observation"])
        names = [name for name in self._tensors if name.startswith("latent_pi.")]
        self._hidden = [f"latent_pi.{2 * i}" for i in range(len(names) // 2)]
        low, high = (np.asarray(sizes[f"action_{end}"], np.float32) for end in ("low", "high"))
        shapes = {k: n if isinstance(n, list) else [n] for k, n in sizes["observation"].items()}
        width = sum(math.prod(shape) for shape in shapes.values())
        self._activation = {"relu": F.relu, "tanh": torch.tanh}[sizes.get("activation", "relu")]
        self._squash = torch.tanh if sizes.get("squash", True) else _clipped
        for layer in self._hidden:
            width = self._checked(layer, width)
        if not low.shape == high.shape == (self._checked("mu", width),):
            raise ValueError(
                f"its bounds {low.shape} and {high.shape} are not those of its actions"
            )
        self._draws = "log_std.weight" in self._tensors
        if self._draws:
            self._checked("log_std", width)
        chosen = sizes.get("dimensions", list(range(len(low))))
        if len(chosen) != len(low) or not all(0 <= int(n) < ACTION_DIM for n in chosen):
            raise ValueError(f"its `dimensions` {chosen} are not those of {len(low)} numbers")
        self._dimensions = [int(number) for number in chosen]
        self.encoder = sizes.get("encoder")
        self._low, self._high = torch.from_numpy(low), torch.from_numpy(high)
        self._generator = torch.Generator().manual_seed(seed)
        self.observation_space = spaces.Dict(
            {key: spaces.Box(-np.inf, np.inf, tuple(shape)) for key, shape in shapes.items()}
        )

    def _checked(self, layer: str, width: int) -> int:
        """Return how many numbers a layer makes of `width`."""
        weight, bias = (self._tensors[f"{layer}.{part}"] for part in ("weight", "bias"))
        if weight.shape != (len(bias), width) or bias.ndim != 1:
            raise ValueError(f"`{layer}` has weights {tuple(weight.shape)} for {width} inputs")
        return len(bias)

    def predict(
        self,
        observation: Mapping[str, np.ndarray],
        state: Any,
        episode_start: Any,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Return actions (B, 7) within the bounds, and the state as it was."""
        parts = [torch.as_tensor(observation[key], dtype=torch.float32) for key in self._keys]
        x = torch.cat([part.flatten(1) for part in parts], dim=1)
        for layer in self._hidden:
            x = self._activation(self._linear(layer, x))
        action = self._linear("mu", x)
        if self._draws and not deterministic:
            std = self._linear("log_std", x).clamp(*LOG_STD_RANGE).exp()
            action = action + std * torch.randn(std.shape, generator=self._generator)
        action = self._low + 0.5 * (self._squash(action) + 1) * (self._high - self._low)
        whole = torch.zeros(len(action), ACTION_DIM)
        whole[:, self._dimensions] = action.clamp(self._low, self._high)
        return whole.numpy(), state

    def _linear(self, layer: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._tensors[f"{layer}.weight"], self._tensors[f"{layer}.bias"])


def _clipped(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-1, 1)


def write_policy(path: Path, actor: Mapping[str, torch.Tensor], sizes: Mapping[str, Any]) -> None:
    """Write a policy that `PolicyAgent` reads without running code.

    Args:
        path: File that ends in .safetensors.
        actor: The actor's weights, by the names that Stable-Baselines3 gives them.
        sizes: As `SquashedGaussian` takes them; more is kept, too.
    """
    SquashedGaussian(actor, sizes)
    write_safetensors(path, actor, {SIZES: json.dumps(sizes)})


def policy_file(path: str | Path) -> Path:
    """Return the file of a policy: the path itself, or that of a shipped one of this name.

    Raises:
        FileNotFoundError: If there is neither.
    """
    path = Path(path)
    if path.is_file():
        return path
    if (shipped := SHIPPED / f"{path}{OWN_SUFFIX}").is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob(f"*{OWN_SUFFIX}")))
    raise FileNotFoundError(
        f"No trained policy at {path}; train one with `jepa-gym train-rl`, or name a shipped one: "
        f"{names}."
    )


def learning_curve(path: str | Path) -> list[dict[str, float]]:
    """Return what the evaluations of a training found, as its policy's file tells it.

    Args:
        path: As `PolicyAgent` takes it, of `jepa-gym train-rl`.

    Returns:
        For each evaluation `step` (environment steps), `success_at_end`, `success_once` and
        `final_distance_m`.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it tells no curve.
    """
    _, metadata = read_safetensors(policy_file(path))
    try:
        return list(json.loads(metadata[SIZES])["curve"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} tells no learning curve ({error!r})") from None


class PolicyAgent(Agent):
    """A trained policy; it reads the entries of the observation that it was trained on.

    One that was trained on latents acts on pictures, too, which the world model encodes.

    Args:
        path: File that `jepa-gym train-rl` wrote, a zip of Stable-Baselines3, or the name of a
            shipped policy: `sac-reach`.
        model: The world model whose latents it was trained on, or its name or folder.
        allow_pickle: Open a zip of Stable-Baselines3 although that runs the code in it.
        device: Torch device of a zip's policy.
        seed: Seed of our own policies' draws when they are not asked to be deterministic.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no policy, or one that would run code and `allow_pickle` is not set.
    """

    def __init__(
        self,
        path: str | Path,
        allow_pickle: bool = False,
        device: str = "cpu",
        seed: int = 0,
        model: WorldModel | str | Path | None = None,
    ) -> None:
        path, self.model = policy_file(path), model
        if path.suffix == OWN_SUFFIX:
            self.policy: _Policy = _read(path, seed)
        elif path.suffix != FOREIGN_SUFFIX:
            raise ValueError(
                f"A policy ends in {OWN_SUFFIX} (of `jepa-gym train-rl`) or {FOREIGN_SUFFIX} (of "
                f"Stable-Baselines3), got {path}."
            )
        elif not allow_pickle:
            raise ValueError(
                f"{path} is a policy of Stable-Baselines3: to open it runs the code in it. If you "
                "trust its maker, say so with `allow_pickle=True` (`--allow-pickle`)."
            )
        else:
            warnings.warn(f"Opening {path} runs the code in it.", RuntimeWarning, stacklevel=2)
            self.policy = _unpickled(path, device)

    def act(
        self,
        observation: dict[str, np.ndarray],
        state: Any,
        episode_start: np.ndarray,
        deterministic: bool,
    ) -> tuple[np.ndarray, Any]:
        """Ask the policy; see `Agent.act`.

        Raises:
            ValueError: If an entry the policy was trained on is missing, or has another shape.
        """
        trained = {key: space.shape for key, space in self.policy.observation_space.items()}
        if len(trained.get("achieved_goal", ())) == 2 and "pixels" in observation:
            observation = observation | self._encoded(observation)
        entries = {key: observation[key] for key in trained if key in observation}
        shapes = {key: entry.shape[1:] for key, entry in entries.items()}
        if shapes != trained:
            raise ValueError(f"The policy was trained on {trained}, the observation has {shapes}.")
        return self.policy.predict(entries, state, episode_start, deterministic)

    def _encoded(self, observation: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the latents of frames and goal images.

        Raises:
            ValueError: If no world model was given, or one with another encoder.
        """
        if self.model is None:
            raise ValueError(
                "the policy was trained on latents and sees pictures: give the world model that "
                "encodes them, `model=...`"
            )
        if isinstance(self.model, str | Path):
            self.model = WorldModel.from_pretrained(self.model)
        trained_on = getattr(self.policy, "encoder", None)
        if trained_on is not None and trained_on != encoder_hash(self.model):
            raise ValueError(
                "the policy was trained on the latents of another world model than "
                f"{self.model.folder or 'this one'}; give that one as `model`"
            )
        current, goal = self.model.observe(observation)
        return {"achieved_goal": current.cpu().numpy(), "desired_goal": goal.cpu().numpy()}


def _read(path: Path, seed: int) -> SquashedGaussian:
    """Read a policy of our own."""
    tensors, metadata = read_safetensors(path)
    try:
        return SquashedGaussian(tensors, json.loads(metadata[SIZES]), seed)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is no policy of `jepa-gym train-rl`: {error}") from None


def _unpickled(path: Path, device: str) -> _Policy:
    """Load a policy of Stable-Baselines3, whatever algorithm it is of; runs the code in it."""
    algorithm, off_policy = _algorithm(path)
    # acting needs no memory of training; a hindsight buffer could not be made without an env
    buffer = {"replay_buffer_class": None, "replay_buffer_kwargs": {}, "buffer_size": 1}
    loaded = algorithm.load(path, device=device, **(buffer if off_policy else {}))
    if not isinstance(loaded.observation_space, spaces.Dict):
        raise ValueError(
            f"{path} was trained on {loaded.observation_space}; agents act on the entries of a "
            "dict observation."
        )
    return loaded


def _algorithm(path: Path) -> tuple[Any, bool]:
    """Return the class that wrote a zip, and whether it has a replay buffer; runs no code in it."""
    import stable_baselines3

    try:
        with zipfile.ZipFile(path) as archive:
            data = json.loads(archive.read("data"))
        package, module, *_ = data["policy_class"]["__module__"].split(".")
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no policy of Stable-Baselines3: {error}") from None
    if module == "common":  # the policies that PPO and A2C share
        module = "ppo" if "clip_range" in data else "a2c"
    algorithm = getattr(stable_baselines3, module.upper(), None)
    if package != "stable_baselines3" or algorithm is None:
        raise ValueError(
            f"{path} has the policy class {data['policy_class']['__module__']}; known are those of "
            "stable_baselines3's own algorithms."
        )
    return algorithm, "buffer_size" in data
