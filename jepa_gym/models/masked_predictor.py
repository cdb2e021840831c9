"""The masked predictor of the pre-training of V-JEPA 2 and V-JEPA 1.

The published code sorts the tokens by position before its blocks and back after them. Attention
does not depend on the order, so here they stay where they are.

Reference: V-JEPA 2 (arXiv 2506.09985); `src/models/predictor.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_gym.models.rope import rotation
from jepa_gym.models.sincos import sincos_embedding
from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer


class MaskedPredictor(nn.Module):
    """Predicts the features at masked positions from those at visible ones."""

    def __init__(
        self,
        grid: tuple[int, int],
        latent_dim: int,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 12,
        num_mask_tokens: int = 1,
        mlp_ratio: float = 4.0,
        rope: str = "interleaved",
    ) -> None:
        """Create the predictor.

        Args:
            grid: Rows and columns of tokens of a frame.
            latent_dim: Width D of the encoder's features.
            embed_dim: Width of the blocks.
            depth: Number of blocks.
            num_heads: Attention heads.
            num_mask_tokens: Learned mask tokens to choose from: one per kind of clip in V-JEPA 2,
                one per kind of mask in V-JEPA 1.
            mlp_ratio: Hidden width of an MLP over `embed_dim`.
            rope: ``interleaved``, or ``v2`` for published weights; or ``sincos``, the absolute
                positions of V-JEPA 1.
        """
        super().__init__()
        self.grid, self.head_dim, self.rope = grid, embed_dim // num_heads, rope
        self.predictor_embed = nn.Linear(latent_dim, embed_dim)
        self.mask_tokens = nn.ParameterList(
            nn.Parameter(torch.zeros(1, 1, embed_dim)) for _ in range(num_mask_tokens)
        )
        self.predictor_blocks = Blocks(depth, embed_dim, num_heads, mlp_ratio)
        self.predictor_norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        self.predictor_proj = nn.Linear(embed_dim, latent_dim)
        init_transformer(self, self.predictor_blocks)

    def forward(
        self, context: Tensor, context_ids: Tensor, target_ids: Tensor, mask_index: int = 0
    ) -> Tensor:
        """Predict features.

        Args:
            context: (B, K, D) features of the visible tokens.
            context_ids: (B, K) their indices in the full grid.
            target_ids: (B, M) indices to predict.
            mask_index: Which mask token; taken modulo their number.

        Returns:
            (B, M, D) predicted features.
        """
        token = self.mask_tokens[mask_index % len(self.mask_tokens)]
        targets = token.expand(*target_ids.shape, -1)
        embedded = self.predictor_embed(context)
        x = torch.cat([embedded, targets.to(embedded.dtype)], dim=1)
        ids = torch.cat([context_ids, target_ids], dim=1)
        rows, columns = self.grid
        positions = torch.stack(
            [ids // (rows * columns), ids % (rows * columns) // columns, ids % columns], dim=-1
        )
        if self.rope == "sincos":
            rope, x = None, x + sincos_embedding(positions, x.shape[-1]).to(x.dtype)
        else:
            rope = rotation(positions, self.head_dim, self.rope)
        for block in self.predictor_blocks:
            x = block(x, rope)
        return self.predictor_proj(self.predictor_norm(x[:, context.shape[1] :]))
