"""What an MPC agent imagines with, and what it thinks of it.

With a world model, an ensemble of them, or the simulator itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch

from jepa_gym.agents.base import ACTION_DIM, GRIPPER


class Model(Protocol):
    """What `MPCAgent` needs of a model; `jepa_gym.world_model.WorldModel` has it.

    A model may also have

    * `observe(observation)`, which returns the latents of what is observed and of the goal, each
      (B, N, D), for a batched observation; else frames are encoded;
    * `prepare(latents, states)`, which prepares the rollouts of one context: its
      `latents(actions)` is the rollout of the model, and its `energy(actions, goal)` that of the
      last frames, (B, S), which depends on the difference of latent and goal alone. A search then
      pays for its context once.
    """

    config: Any
    """Has `context_frames`, how many observed frames the model sees by default."""

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Return latents (B, T, N, D) of frames (B, T, Y, X, 3) uint8."""
        ...

    def rollout(
        self, latents: torch.Tensor, states: torch.Tensor, actions: torch.Tensor
    ) -> torch.Tensor:
        """Return imagined latents (B, S, H, N, D).

        Args:
            latents: (B, T, N, D), what was observed, oldest first.
            states: (B, T, 7).
            actions: (B, S, H, 7), physical units.

        A model that gradient planners can use has the keyword `grad`: with True, the latents have a
        gradient with respect to `actions`.
        """
        ...

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return how far latents (B, S, N, D) are from a goal (B, N, D), as (B, S)."""
        ...


class Ensemble:
    """Several world models as one: the energy is the mean of theirs.

    The latent of a frame is the row (1, D) of all their latents, one after the other, so models of
    different latents go together. All must take frames of one size.

    Args:
        models: World models.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        if not models:
            raise ValueError("`models` must hold at least one world model.")
        self.models = list(models)
        self._shapes = [(m.config.num_tokens, m.config.encoder.latent_dim) for m in self.models]
        context_frames = min(model.config.context_frames for model in self.models)
        self.config = SimpleNamespace(context_frames=context_frames)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Return latents (B, T, 1, D) of frames (B, T, Y, X, 3) uint8."""
        return self._join([model.encode(frames) for model in self.models])

    def rollout(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        actions: torch.Tensor,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Return imagined latents (B, S, H, 1, D); see `Model.rollout`."""
        parts = zip(self.models, self._split(latents), strict=True)
        return self._join([m.rollout(own, states, actions, **kwargs) for m, own in parts])

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the mean of the models' energies, (B, S) for latents (B, S, 1, D)."""
        parts = zip(self.models, self._split(latents), self._split(goal), strict=True)
        return torch.stack([model.energy(own, aim) for model, own, aim in parts]).mean(0)

    @staticmethod
    def _join(latents: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([part.flatten(-2)[..., None, :] for part in latents], dim=-1)

    def _split(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return each model's part (..., N, D) of latents (..., 1, D)."""
        sizes = [tokens * width for tokens, width in self._shapes]
        if tuple(latents.shape[-2:]) != (1, sum(sizes)):
            raise ValueError(
                f"This ensemble's latents are (..., 1, {sum(sizes)}), got {tuple(latents.shape)}; "
                "the latents of one model alone, as JEPALatent-v0 has them, do not fit."
            )
        parts = latents[..., 0, :].split(sizes, dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self._shapes, strict=True)]


class SimulatorModel:
    """The simulator as the model: perfect, privileged and slow; what planning can reach at best.

    The latent is `achieved_goal` itself, one token of metres, and the energy the distance to
    `desired_goal` in metres; pictures are not used (make the environment with `obs_mode="state"`).
    The costs have no gradient.

    Args:
        env: The environment that is being acted in, wrapped or not. Its core has `get_state()` and
            `set_state()`; a rollout leaves it as it was.

    Raises:
        TypeError: If the environment cannot be branched.
    """

    def __init__(self, env: gym.Env) -> None:
        self.env = env.unwrapped
        if not all(callable(getattr(self.env, f"{do}_state", None)) for do in ("get", "set")):
            raise TypeError(
                f"{type(self.env).__name__} has no `get_state()` and `set_state()`, which planning "
                "with the simulator needs; the Franka environments have them."
            )
        self.config = SimpleNamespace(context_frames=1)

    def observe(self, observation: Mapping[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return achieved and desired goal (1, 1, D) in metres.

        Raises:
            ValueError: If the batch holds more than the one environment.
        """
        if len(observation["observation"]) != 1:
            raise ValueError(
                "The simulator imagines for the one environment it was made with, got a batch of "
                f"{len(observation['observation'])}."
            )
        goals = (observation[f"{which}_goal"] for which in ("achieved", "desired"))
        achieved, desired = (torch.as_tensor(goal, dtype=torch.float32) for goal in goals)
        return achieved[:, None], desired[:, None]

    def rollout(
        self,
        latents: torch.Tensor,
        states: torch.Tensor,
        actions: torch.Tensor,
        grad: bool = False,
    ) -> torch.Tensor:
        """Carry every candidate out, from where the environment is now.

        Args:
            latents: (1, T, 1, D), not used: the environment knows where it is.
            states: (1, T, 7), not used.
            actions: (1, S, H, 7), physical units.
            grad: Not used: there is no gradient.

        Returns:
            (1, S, H, 1, D), `achieved_goal` after every step, metres.
        """
        now = self.env.get_state()
        places = []
        try:
            for sequence in actions[0].detach().cpu().numpy():
                self.env.set_state(now)
                places.append([self.env.step(action)[0]["achieved_goal"] for action in sequence])
        finally:
            self.env.set_state(now)
        return torch.from_numpy(np.asarray(places, dtype=np.float32))[None, :, :, None]

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the distance (1, S) in metres of places (1, S, 1, D) to the goal (1, 1, D)."""
        return (latents - goal[:, None]).norm(dim=-1)[..., 0]


def imagined_energies(
    model: Model,
    latents: torch.Tensor,
    states: torch.Tensor,
    goal: torch.Tensor,
    cost: str = "last",
    hold: torch.Tensor | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that gives candidates (B, S, H, 7) their energies (B, S).

    The energies have a gradient if the candidates require one and the model can give it.

    Args:
        model: What imagines.
        latents: (B, T, N, D), what was observed.
        states: (B, T, 7).
        goal: (B, N, D).
        cost: `last` takes the energy of the last imagined frame, `path` the mean over all.
        hold: (B, 1, H, 7), the actions of holding still, to take what the model gets wrong about
            them off every imagined latent; or None.
    """
    frames = slice(-1, None) if cost == "last" else slice(None)
    prepared = model.prepare(latents, states) if hasattr(model, "prepare") else None

    def imagine(actions: torch.Tensor) -> torch.Tensor:
        if actions.requires_grad:
            return model.rollout(latents, states, actions, grad=True)[:, :, frames]
        if prepared is not None:
            return prepared.latents(actions)[:, :, frames]
        return model.rollout(latents, states, actions)[:, :, frames]

    offset = torch.zeros_like(latents[:, -1:, None])
    if hold is not None:
        offset = latents[:, -1:, None] - imagine(hold)  # (B, 1, 1 or H, N, D)
    aim = goal.to(offset.device) - offset[:, 0, -1]  # moving the goal is moving every last frame

    def energies(actions: torch.Tensor) -> torch.Tensor:
        if prepared is not None and cost == "last" and not actions.requires_grad:
            return prepared.energy(actions, aim).to(actions.device)
        future = imagine(actions) + offset  # (B, S, 1 or H, N, D)
        energy = model.energy(future.flatten(1, 2), goal.to(future.device))
        return energy.unflatten(1, future.shape[1:3]).mean(dim=2).to(actions.device)

    return energies


def up_to_the_stops(
    closedness: torch.Tensor, actions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integrate the gripper's closedness, and shorten changes that go beyond its stops.

    Args:
        closedness: (B,) in [0, 1], now.
        actions: (B, S, H, 7).

    Returns:
        The actions with the changes that can be carried out, and the closedness (B, S) in [0, 1]
        after the last one.
    """
    if actions.shape[-1] != ACTION_DIM:
        raise ValueError(f"`actions` must end in {ACTION_DIM}, got {tuple(actions.shape)}.")
    actions = actions.clone()
    predicted = closedness[:, None].expand(actions.shape[:2])
    for step in range(actions.shape[2]):
        after = (predicted + actions[:, :, step, GRIPPER]).clamp(0, 1)
        actions[:, :, step, GRIPPER] = after - predicted
        predicted = after
    return actions, predicted
