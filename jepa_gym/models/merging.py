"""Neighbouring tokens of a frozen encoder joined into one, by principal components.

A planner pays for every token of every imagined frame, and fine patches make many. Joining squares
of tokens keeps their content side by side; the leading principal components keep most of it in few
channels, without any supervision.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn


class TokenMerging(nn.Module):
    """Maps squares of neighbouring tokens to one token each, linearly."""

    def __init__(self, grid: tuple[int, int], embed_dim: int, latent_dim: int, merge: int) -> None:
        """Create the projection, untrained.

        Args:
            grid: Rows and columns of merged tokens.
            embed_dim: Channels of a token.
            latent_dim: Channels of a merged token.
            merge: Tokens along each side of a square.
        """
        super().__init__()
        self.rows, self.merge = grid[0], merge
        self.proj = nn.Linear(embed_dim * merge**2, latent_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, rows * columns, D), row by row, to merged ones (B, N, latent_dim)."""
        return self.proj(self.joined(tokens))

    def joined(self, tokens: Tensor) -> Tensor:
        """Return the tokens (B, rows * columns, D) of each square side by side (B, N, D')."""
        pattern = "b (rows p columns q) d -> b (rows columns) (p q d)"
        return rearrange(tokens, pattern, rows=self.rows, p=self.merge, q=self.merge)

    @torch.no_grad()
    def fit(self, tokens: Tensor) -> float:
        """Make the projection the leading principal components about the mean; all places share it.

        They are not scaled to equal variances: energies then rank distances less well (measured).

        Args:
            tokens: (B, rows * columns, D) of many frames.

        Returns:
            The share of the variance that the components keep.
        """
        x = self.joined(tokens).flatten(0, 1).double()
        mean = x.mean(0)
        values, vectors = torch.linalg.eigh(torch.cov((x - mean).T))
        kept = len(self.proj.weight)
        components = vectors.flip(1)[:, :kept].T
        self.proj.weight.copy_(components)
        self.proj.bias.copy_(-components @ mean)
        return (values.flip(0)[:kept].sum() / values.sum()).item()
