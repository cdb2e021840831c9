"""What a small network reads of the robot's state from a latent alone.

Energies of local tokens are nearly flat far from a goal: the hand covers other tokens here than
there, and it does not matter how far apart. A readout of the whole latent tells how far, and takes
nothing but pictures: it is read from the imagined and from the goal's latent alike. The latents
themselves know nothing of it.
"""

from __future__ import annotations

from torch import Tensor, nn

READ = (0, 1, 2, 6)
"""Which numbers of a state are read: x, y, z and closedness."""


class StateReadout(nn.Module):
    """Reads positions and closedness, in standard deviations of the training states."""

    def __init__(
        self, num_tokens: int, latent_dim: int, squeezed: int = 32, hidden: int = 256
    ) -> None:
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            squeezed: Channels that each token keeps.
            hidden: Width of the hidden layers.
        """
        super().__init__()
        self.squeeze = nn.Linear(latent_dim, squeezed)
        self.layers = nn.Sequential(
            nn.Linear(num_tokens * squeezed, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, len(READ)),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Read (..., 4) from latents (..., N, D)."""
        return self.layers(self.squeeze(latents).flatten(-2))
