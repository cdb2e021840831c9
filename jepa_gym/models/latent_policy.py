"""A small policy on latents: the translation of the hand towards a goal image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOVEMENT_DIM = 3
"""Translations along x, y and z."""


class LatentPolicy(nn.Module):
    """Latent and goal latent to the next translation.

    Every token of the latent, of the goal's and of their difference, which is small near the goal,
    becomes a few numbers by one linear map each.
    """

    def __init__(self, num_tokens: int, latent_dim: int, width: int = 16, hidden: int = 256):
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            width: Numbers that a token is reduced to.
            hidden: Width of the two hidden layers.
        """
        super().__init__()
        self.sizes = {
            "num_tokens": num_tokens,
            "latent_dim": latent_dim,
            "width": width,
            "hidden": hidden,
        }
        self.squeeze = nn.ModuleList([nn.Linear(latent_dim, width) for _ in range(3)])
        joined = 3 * num_tokens * width
        self.layers = nn.Sequential(
            nn.LayerNorm(joined),
            nn.Linear(joined, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, MOVEMENT_DIM),
        )

    def forward(self, latents: Tensor, goals: Tensor) -> Tensor:
        """Return translations (B, 3) in [-1, 1], over the largest move along an axis.

        Args:
            latents: (B, N, D), of the present frames.
            goals: (B, N, D).
        """
        parts = (latents, goals, goals - latents)
        joined = [own(part).flatten(1) for own, part in zip(self.squeeze, parts, strict=True)]
        return torch.tanh(self.layers(torch.cat(joined, -1)).float())
