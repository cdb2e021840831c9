"""A goal-conditioned behaviour-cloning transformer: what to do next, from two frames' tokens.

It stands for the transformer policies of robot learning (Octo, arXiv 2405.12213, is the one of
V-JEPA 2's table) at the size of this project: tokens of the present frame, tokens of the goal
image, one token for the arm's state and one that is read from. It sees the frozen latents of a
world model and learns as the inverse model does, so that networks are compared and not data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_gym.models.inverse import Guess
from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer

HEAD_DIM = 32
MLP_RATIO = 4.0


class BehaviourTransformer(nn.Module):
    """Latent, state and goal latent to the next action and the steps that are left."""

    def __init__(
        self,
        num_tokens: int,
        latent_dim: int,
        most_steps: int,
        embed_dim: int = 128,
        depth: int = 4,
    ) -> None:
        """Create the network.

        Args:
            num_tokens: N of a latent.
            latent_dim: D of a latent.
            most_steps: K; goals farther than that count as K steps away.
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
            "most_steps": most_steps,
            "embed_dim": embed_dim,
            "depth": depth,
        }
        self.embed_here = nn.Linear(latent_dim, embed_dim)
        self.embed_goal = nn.Linear(latent_dim, embed_dim)
        self.embed_state = nn.Linear(7, embed_dim)
        self.places = nn.Parameter(0.02 * torch.randn(2 * num_tokens + 2, embed_dim))
        self.blocks = Blocks(depth, embed_dim, embed_dim // HEAD_DIM, MLP_RATIO)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        init_transformer(self, self.blocks)
        self.movement = nn.Linear(embed_dim, 6)
        self.gripper = nn.Linear(embed_dim, 3)
        self.steps = nn.Linear(embed_dim, most_steps)

    def forward(self, latents: Tensor, states: Tensor, goals: Tensor) -> Guess:
        """Guess what leads on to the goals.

        Args:
            latents: (B, N, D), of the present frames.
            states: (B, 7), standardised.
            goals: (B, N, D).
        """
        state = self.embed_state(states.to(latents.dtype))[:, None]
        parts = [torch.zeros_like(state), state, self.embed_here(latents), self.embed_goal(goals)]
        x = torch.cat(parts, dim=1) + self.places
        for block in self.blocks:
            x = block(x, None)
        read = self.norm(x[:, 0])
        return Guess(*(head(read).float() for head in (self.movement, self.gripper, self.steps)))
