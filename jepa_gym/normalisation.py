"""What the networks see of pixels, states and actions, and the norm that every latent goes through.

Outside a `WorldModel` everything is in physical units: bytes of colour, metres, radians. Nothing
else in the project standardises them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_gym import poses
from jepa_gym.config import WorldModelConfig
from jepa_gym.models.statistics import Statistics

LATENT_EPS = 1e-5


def layer_norm(latents: Tensor) -> Tensor:
    """Apply the parameter-free layer norm over the last dimension, as every latent goes through."""
    return F.layer_norm(latents, latents.shape[-1:], eps=LATENT_EPS)


class Normaliser(Statistics):
    """Standardises the inputs of a world model's networks, by the statistics of its training."""

    state_mean: Tensor
    state_std: Tensor
    action_scale: Tensor
    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(
        self, config: WorldModelConfig, colour_mean: Sequence[float], colour_std: Sequence[float]
    ) -> None:
        """Take over the statistics.

        Args:
            config: Has `state_mean`, `state_std` and `action_scale`.
            colour_mean: Of red, green, blue; in [0, 1].
            colour_std: Likewise.
        """
        super().__init__()
        self.register(
            persistent=False,
            state_mean=config.state_mean,
            state_std=config.state_std,
            action_scale=config.action_scale,
            pixel_scale=[1 / (255 * s) for s in colour_std],
            pixel_shift=[-m / s for m, s in zip(colour_mean, colour_std, strict=True)],
        )

    def pixels(self, frames: Tensor) -> Tensor:
        """Standardise frames (..., X, 3), uint8 or float in [0, 255], colours last; float32."""
        rows, columns = frames.flatten(-2), frames.shape[-2]  # loops over three numbers are slow
        shift, scale = self.pixel_shift.repeat(columns), self.pixel_scale.repeat(columns)
        return torch.addcmul(shift, rows.to(torch.float32), scale).unflatten(-1, (columns, 3))

    def states(self, states: Tensor) -> Tensor:
        """Standardise states (..., 7); differences of angles from their mean are wrapped."""
        return poses.centred(states, self.state_mean) / self.state_std

    def actions(self, actions: Tensor) -> Tensor:
        """Divide actions (..., 7) by their scale."""
        return actions / self.action_scale
