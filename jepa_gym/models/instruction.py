"""From an instruction in words to the latent of a frame that satisfies it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer

HEAD_DIM = 32
MLP_RATIO = 4.0
LATENT_EPS = 1e-5
"""Of the norm that every latent goes through."""


class InstructionModel(nn.Module):
    """Latent, state and words to a goal latent: what the frame changes into.

    Tokens of the frame, one of the state and one a word go through a small transformer; what comes
    out where the frame's tokens stand is added to them. Planners take the result as the latent of
    a goal image.
    """

    def __init__(
        self,
        num_tokens: int,
        latent_dim: int,
        words: int,
        longest: int,
        embed_dim: int = 128,
        depth: int = 3,
    ) -> None:
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            words: Words that can be said.
            longest: Words of the longest instruction.
            embed_dim: Width, a multiple of 32.
            depth: Number of blocks.

        Raises:
            ValueError: When `embed_dim` is another number.
        """
        super().__init__()
        if embed_dim < HEAD_DIM or embed_dim % HEAD_DIM:
            raise ValueError(
                f"`embed_dim` must be a positive multiple of {HEAD_DIM}, got {embed_dim}"
            )
        self.sizes = {
            "num_tokens": num_tokens,
            "latent_dim": latent_dim,
            "words": words,
            "longest": longest,
            "embed_dim": embed_dim,
            "depth": depth,
        }
        self.embed_frame = nn.Linear(latent_dim, embed_dim)
        self.embed_state = nn.Linear(7, embed_dim)
        self.embed_word = nn.Embedding(words + 1, embed_dim)  # 0: no word
        self.places = nn.Parameter(0.02 * torch.randn(num_tokens + 1 + longest, embed_dim))
        self.blocks = Blocks(depth, embed_dim, embed_dim // HEAD_DIM, MLP_RATIO)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.change = nn.Linear(embed_dim, latent_dim)
        init_transformer(self, self.blocks)

    def forward(self, latents: Tensor, states: Tensor, words: Tensor) -> Tensor:
        """Return goal latents (B, N, D), layer-normed as those of frames are.

        Args:
            latents: (B, N, D), of the present frames.
            states: (B, 7), standardised.
            words: (B, L) int64, as `jepa_gym.instructions.word_numbers` gives them.
        """
        state = self.embed_state(states.to(latents.dtype))[:, None]
        x = torch.cat([self.embed_frame(latents), state, self.embed_word(words)], dim=1)
        x = x + self.places
        for block in self.blocks:
            x = block(x, None)
        change = self.change(self.norm(x[:, : latents.shape[1]]))
        changed = latents + change.to(latents.dtype)
        return F.layer_norm(changed, changed.shape[-1:], eps=LATENT_EPS)
