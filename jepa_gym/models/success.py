"""Whether a frame shows the goal, read from the two latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SuccessDetector(nn.Module):
    """Latent and goal latent to a logit: above 0 the goal is reached.

    Every token of the latent, of the goal's and the size of their difference become a few numbers
    by one linear map each. `offset` is subtracted from what the network says; it sets how many
    frames that are not at the goal may count as success.
    """

    def __init__(
        self, num_tokens: int, latent_dim: int, width: int = 16, hidden: int = 256
    ) -> None:
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
        self.squeeze = nn.Linear(latent_dim, width)
        self.squeeze_difference = nn.Linear(latent_dim, width)
        self.layers = nn.Sequential(
            nn.Linear(3 * num_tokens * width, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, 1),
        )
        self.offset = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, latents: Tensor, goals: Tensor) -> Tensor:
        """Return logits (...) of latents and goals (..., N, D)."""
        here, there = self.squeeze(latents), self.squeeze(goals)
        apart = self.squeeze_difference((latents - goals).abs())
        joined = torch.cat([(here - there).abs(), here + there, apart], -1).flatten(-2)
        return self.layers(joined)[..., 0].float() - self.offset
