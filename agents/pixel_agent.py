"""Planning in pictures: the same search, its candidates judged by what a decoder draws of them.

This takes the place of a generative world model (Cosmos in V-JEPA 2's table): imagined frames are
drawn and compared with the goal image pixel by pixel, instead of latent with latent.
"""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_gym.agents.base import Observation
from jepa_gym.agents.dynamics import Rollout
from jepa_gym.agents.mpc import MPCAgent
from jepa_gym.agents.planners.cem import CEMConfig
from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.models import FrameDecoder
from jepa_gym.world_model import WorldModel

SEARCH = CEMConfig(samples=24, iterations=3, top_k=5)
"""Drawing takes most of the time, so there are fewer candidates than latents can be compared."""


class PixelModel:
    """A world model whose energy is the mean absolute difference of drawn pictures, 0 to 1.

    It is a `jepa_gym.agents.dynamics.Dynamics`. What the decoder draws is compared with what it
    draws of the goal's latent, so that what it cannot draw counts on neither side.

    Args:
        model: Imagines.
        decoder: Draws its latents.
    """

    readout_weight = 0.0

    def __init__(self, model: WorldModel, decoder: FrameDecoder) -> None:
        self.model, self.decoder = model, decoder
        self.context_frames: int = model.context_frames

    def observe(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the latents of what is observed and of the goal, each (B, N, D)."""
        return self.model.observe(observation)

    def prepare(
        self, latents: torch.Tensor, states: torch.Tensor, *, grad: bool = False
    ) -> Rollout:
        """Prepare the rollouts of one context; see `Dynamics.prepare`."""
        return _PixelRollout(self, self.model.prepare(latents, states, grad=grad))

    def energy(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Return how far the pictures of latents (B, S, N, D) are from a goal's, (B, S)."""
        drawn = self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return (drawn - self.decoder(goal)[:, None]).abs().flatten(2).mean(-1)

    def state_difference(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Raise ValueError: states are read from latents, not from pictures."""
        raise ValueError("Pictures have no readout; `readout_weight` must be 0 or None.")


class _PixelRollout:
    """Candidates that are imagined, and drawn to be judged; see `Rollout`."""

    def __init__(self, model: PixelModel, rollout: Rollout) -> None:
        self._model, self._rollout = model, rollout

    def latents(self, actions: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
        return self._rollout.latents(actions, chunk)

    def energy(
        self, actions: torch.Tensor, goal: torch.Tensor, chunk: int | None = None
    ) -> torch.Tensor:
        return self._model.energy(self.latents(actions, chunk)[:, :, -1], goal)


class PixelAgent(MPCAgent):
    """Plan by the cross-entropy method, with a cost in pixels.

    Args:
        model: A world model with a decoder beside it, or its name or folder.
        seed: Seed of the search.

    Raises:
        ValueError: If there is no decoder.
    """

    def __init__(self, model: WorldModel | str | Path = "default", seed: int = 0) -> None:
        if isinstance(model, str | Path):
            model = WorldModel.from_pretrained(model)
        decoder = DECODER.own(model)
        if decoder is None:
            raise ValueError(
                f"the model {model.folder or ''} has no decoder beside it; train one with "
                f"`{DECODER.command} --checkpoint FOLDER`"
            )
        super().__init__(PixelModel(model, decoder), config=SEARCH, min_improvement=0.0, seed=seed)
