"""From an instruction in words to what satisfies it: a goal latent, and where the hand goes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer

HEAD_DIM = 32
MLP_RATIO = 4.0
LATENT_EPS = 1e-5
"""Of the norm that every latent goes through."""


MOVE_M = 0.1
"""Unit of the moves that the network tells."""


@dataclass(frozen=True)
class Meaning:
    """What B instructions mean in the frames that they are said in."""

    goals: Tensor
    """(B, N, D), latents of frames that satisfy them, layer-normed as those of frames are."""
    moves: Tensor
    """(B, 3), metres from the hand to where it satisfies them."""
    kinds: Tensor
    """(B, K), logits of the kinds of instruction."""


class InstructionModel(nn.Module):
    """Latent, state and words to what the frame changes into and how far the hand goes.

    Tokens of the frame, one of the state and one a word go through a small transformer; what comes
    out where the frame's tokens stand is added to them, which gives the goal's latent, and what
    comes out where the state stands tells kind and move. A few latents of recorded frames in which
    an instruction is satisfied lie beside the weights: what the network predicts is a mean of all
    that could be, and the nearest recorded frame is one that is.
    """

    recorded: Tensor
    recorded_kinds: Tensor

    def __init__(
        self,
        num_tokens: int,
        latent_dim: int,
        words: int,
        longest: int,
        kinds: int,
        recorded: int,
        embed_dim: int = 128,
        depth: int = 3,
    ) -> None:
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            words: Words that can be said.
            longest: Words of the longest instruction.
            kinds: Kinds of instruction.
            recorded: Latents of recorded frames that are kept.
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
            "kinds": kinds,
            "recorded": recorded,
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
        self.move = nn.Linear(embed_dim, 3)
        self.kind = nn.Linear(embed_dim, kinds)
        self.register_buffer("recorded", torch.zeros(recorded, num_tokens, latent_dim))
        self.register_buffer("recorded_kinds", torch.full((recorded,), -1.0))
        init_transformer(self, self.blocks)

    def forward(self, latents: Tensor, states: Tensor, words: Tensor) -> Meaning:
        """Tell what instructions mean.

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
        x, tokens = self.norm(x), latents.shape[1]
        changed = latents + self.change(x[:, :tokens]).to(latents.dtype)
        goals = F.layer_norm(changed, changed.shape[-1:], eps=LATENT_EPS)
        told = x[:, tokens]
        return Meaning(goals, MOVE_M * self.move(told).float(), self.kind(told).float())

    def nearest_recorded(self, goals: Tensor, kinds: Tensor) -> Tensor:
        """Return for each goal the nearest recorded latent (B, N, D) after such an instruction.

        Args:
            goals: (B, N, D), as predicted.
            kinds: (B,) int64. Goals of a kind that is not recorded stay as they are.
        """
        found = []
        for goal, kind in zip(goals, kinds, strict=True):
            kept = self.recorded[self.recorded_kinds == kind].to(goal.dtype)
            if len(kept):
                goal = kept[(kept - goal).abs().mean((1, 2)).argmin()]
            found.append(goal)
        return torch.stack(found)
