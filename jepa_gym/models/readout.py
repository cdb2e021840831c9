"""What a linear map reads of the robot's state from a latent alone.

Energies of local tokens are nearly flat far from a goal: the hand covers other tokens here than
there, and it does not matter how far apart. A readout of the whole latent tells how far, and takes
nothing but pictures: it is read from the imagined and from the goal's latent alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

READ = (0, 1, 2, 6)
"""Which numbers of a state are read: x, y, z and closedness."""


class StateReadout(nn.Module):
    """Reads standardised positions and closedness from latents, linearly."""

    def __init__(self, num_tokens: int, latent_dim: int) -> None:
        """Create the map, untrained.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
        """
        super().__init__()
        self.linear = nn.Linear(num_tokens * latent_dim, len(READ))

    def forward(self, latents: Tensor) -> Tensor:
        """Read (..., 4), in standard deviations of the training states, from (..., N, D)."""
        return self.linear(latents.flatten(-2))

    @torch.no_grad()
    def fit(self, latents: Tensor, targets: Tensor, ridge: float) -> None:
        """Fit by ridge regression.

        Args:
            latents: (P, N, D).
            targets: (P, 4), standardised.
            ridge: Penalty on squared weights, relative to the mean square of the inputs.
        """
        x = latents.flatten(1)
        mean, offset = x.mean(0), targets.mean(0)
        x = x - mean
        gram = x.T @ x
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        weights = torch.linalg.solve(gram, x.T @ (targets - offset))  # (N D, 4)
        self.linear.weight.copy_(weights.T)
        self.linear.bias.copy_(offset - mean @ weights)
