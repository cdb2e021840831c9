"""What an agent plans with: a world model, an ensemble of them, or the simulator itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
import torch

from jepa_gym.agents.base import InOneEnvironment, Observation


class Rollout(Protocol):
    """The futures of one context: where candidates lead, and how far from a goal they end."""

    def latents(self, actions: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        """Return the latents (B, S, H, N, D) that actions (B, S, H, 7) lead to.

        Args:
            actions: Candidates in physical units.
            chunk: Candidates imagined at a time, or None for as many as fit.
        """
        ...

    def energy(
        self, actions: torch.Tensor, goal: torch.Tensor, chunk: int | None = None
    ) -> torch.Tensor:
        """Return the energies (B, S) of the last frames that actions (B, S, H, 7) lead to.

        They depend on the difference of latent and goal alone.

        Args:
            actions: Candidates in physical units.
            goal: (B, N, D).
            chunk: As for `latents`.
        """
        ...


class Dynamics(Protocol):
    """What tells where actions lead; `jepa_gym.world_model.WorldModel` does.

    N tokens of D numbers make a frame's latent.
    """

    @property
    def context_frames(self) -> int:
        """How many observed frames it sees by default."""
        ...

    @property
    def readout_weight(self) -> float:
        """Weight of `state_difference` in the cost of a plan by default; 0 where there is none."""
        ...

    def observe(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of what is observed and of the goal, each (B, N, D)."""
        ...

    def prepare(
        self, latents: torch.Tensor, states: torch.Tensor, *, grad: bool = False
    ) -> Rollout:
        """Prepare the rollouts of one context, so that a search pays for it once.

        Args:
            latents: (B, T, N, D), what was observed, oldest first.
            states: (B, T, 7).
            grad: Whether results have gradients with respect to actions.
        """
        ...

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return how far latents (B, S, N, D) are from a goal (B, N, D), as (B, S)."""
        ...

    def state_difference(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return how far what is read of the states is from the goal's, as `energy` does."""
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
        self.context_frames: int = min(model.context_frames for model in self.models)
        self.readout_weight: float = min(model.readout_weight for model in self.models)

    def observe(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents (B, 1, D) of `pixels` and `goal_pixels`.

        Raises:
            ValueError: If there are no pictures: the latents of one model alone do not fit.
        """
        if "pixels" not in observation:
            raise ValueError(
                "An ensemble needs `pixels` and `goal_pixels`; the latents of one model alone, as "
                f"JEPALatent-v0 has them, do not fit. Got the entries {', '.join(observation)}."
            )
        current, goal = zip(*(model.observe(observation) for model in self.models), strict=True)
        return self._join(current), self._join(goal)

    def prepare(
        self, latents: torch.Tensor, states: torch.Tensor, *, grad: bool = False
    ) -> Rollout:
        """Prepare the rollouts of every model; see `Dynamics.prepare`."""
        parts = zip(self.models, self.split(latents), strict=True)
        return _EnsembleRollout(self, [m.prepare(own, states, grad=grad) for m, own in parts])

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the mean of the models' energies, (B, S) for latents (B, S, 1, D)."""
        parts = zip(self.models, self.split(latents), self.split(goal), strict=True)
        return torch.stack([model.energy(own, aim) for model, own, aim in parts]).mean(0)

    def state_difference(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the mean of the models' differences, (B, S) for latents (B, S, 1, D)."""
        parts = zip(self.models, self.split(latents), self.split(goal), strict=True)
        return torch.stack([model.state_difference(own, aim) for model, own, aim in parts]).mean(0)

    def split(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return each model's part (..., N, D) of latents (..., 1, D).

        Raises:
            ValueError: If they are not those of this ensemble.
        """
        sizes = [tokens * width for tokens, width in self._shapes]
        if tuple(latents.shape[-2:]) != (1, sum(sizes)):
            raise ValueError(
                f"This ensemble's latents are (..., 1, {sum(sizes)}), got {tuple(latents.shape)}."
            )
        parts = latents[..., 0, :].split(sizes, dim=-1)
        return [part.unflatten(-1, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    @staticmethod
    def _join(latents: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat([part.flatten(-2)[..., None, :] for part in latents], dim=-1)


class _EnsembleRollout:
    """The rollouts of an ensemble's models; see `Rollout`."""

    def __init__(self, ensemble: Ensemble, parts: list[Rollout]) -> None:
        self._ensemble, self._parts = ensemble, parts

    def latents(self, actions: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        return self._ensemble._join([part.latents(actions, chunk) for part in self._parts])

    def energy(
        self, actions: torch.Tensor, goal: torch.Tensor, chunk: int | None = None
    ) -> torch.Tensor:
        parts = zip(self._parts, self._ensemble.split(goal), strict=True)
        return torch.stack([part.energy(actions, aim, chunk) for part, aim in parts]).mean(0)


class SimulatorModel(InOneEnvironment):
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

    context_frames = 1
    readout_weight = 0.0

    def __init__(self, env: gym.Env) -> None:
        self.env: Any = env.unwrapped
        if not all(callable(getattr(self.env, f"{do}_state", None)) for do in ("get", "set")):
            raise TypeError(
                f"{type(self.env).__name__} has no `get_state()` and `set_state()`, which planning "
                "with the simulator needs; the Franka environments have them."
            )

    def observe(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
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

    def prepare(
        self, latents: torch.Tensor, states: torch.Tensor, *, grad: bool = False
    ) -> Rollout:
        """Return the rollouts from where the environment is now; no argument matters."""
        return _SimulatorRollout(self)

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return the distance (1, S) in metres of places (1, S, 1, D) to the goal (1, 1, D)."""
        return (latents - goal[:, None]).norm(dim=-1)[..., 0]

    def state_difference(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Raise ValueError: places are not read from anything, they are what is observed."""
        raise ValueError("The simulator has no readout; `readout_weight` must be 0 or None.")


class _SimulatorRollout:
    """Candidates that are really carried out, and undone; see `Rollout`."""

    def __init__(self, model: SimulatorModel) -> None:
        self._model = model
        self._now = model.env.get_state()

    def latents(self, actions: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        env, places = self._model.env, []
        try:
            for sequence in actions[0].detach().cpu().numpy():
                env.set_state(self._now)
                places.append([env.step(action)[0]["achieved_goal"] for action in sequence])
        finally:
            env.set_state(self._now)
        return torch.from_numpy(np.asarray(places, dtype=np.float32))[None, :, :, None]

    def energy(
        self, actions: torch.Tensor, goal: torch.Tensor, chunk: int | None = None
    ) -> torch.Tensor:
        return self._model.energy(self.latents(actions, chunk)[:, :, -1], goal)
