"""Pre-norm transformer blocks with the parameter names of V-JEPA 2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from jepa_gym.models.linear import Linear
from jepa_gym.models.rope import Rotation, rotate

NORM_EPS = 1e-6
INIT_STD = 0.02
_AMX = torch.cpu._is_amx_tile_supported()
"""Whether the processor multiplies tiles of bfloat16."""


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend, and join the heads.

    Args:
        queries: (B, heads, tokens, head_dim).
        keys: (B, heads, seen, head_dim).
        values: As `keys`.
        mask: (tokens, seen) bool, True where a row may see a column.

    Returns:
        (B, tokens, heads * head_dim).
    """
    if queries.is_cpu and (torch.is_grad_enabled() or not _AMX):
        # the CPU's attention is slower in bfloat16 than in float32, or its gradients are
        with torch.autocast("cpu", enabled=False):
            x = F.scaled_dot_product_attention(
                queries.float(), keys.float(), values.float(), attn_mask=mask
            )
    else:
        x = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return x.transpose(1, 2).flatten(2).to(values.dtype)


class Attention(nn.Module):
    """Multi-head attention with one fused projection and rotary positions."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        """Create the projections.

        Args:
            embed_dim: Token width, a multiple of `num_heads`.
            num_heads: Number of heads.
        """
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(embed_dim, 3 * embed_dim)  # rows: queries, keys, values
        self.proj = Linear(embed_dim, embed_dim)

    def tokens(self, x: Tensor, rope: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, each (B, tokens, heads, head_dim)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, tokens, 3, heads, head_dim)
        pair = qkv[:, :, :2]
        queries, keys = (pair if rope is None else rotate(pair, rope)).unbind(2)
        return queries, keys, qkv[:, :, 2]

    def project(self, x: Tensor, rope: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries and keys, and values, each (B, heads, tokens, head_dim)."""
        queries, keys, values = (part.transpose(1, 2) for part in self.tokens(x, rope))
        return queries, keys, values

    def forward(self, x: Tensor, rope: Rotation | None, mask: Tensor | None = None) -> Tensor:
        """Attend within x.

        Args:
            x: (B, tokens, embed_dim).
            rope: Rotation of the tokens' positions; None for tokens without positions.
            mask: (tokens, tokens) bool, True where a row may see a column.
        """
        return self.proj(attention(*self.project(x, rope), mask))


class MLP(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, embed_dim: int, hidden: int) -> None:
        """Create the layers."""
        super().__init__()
        self.fc1 = Linear(embed_dim, hidden)
        self.fc2 = Linear(hidden, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., embed_dim) to (..., embed_dim)."""
        return self.fc2(self.fc1(x, gelu=True))


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, eps: float = NORM_EPS
    ) -> None:
        """Create the block.

        Args:
            embed_dim: Token width.
            num_heads: Attention heads.
            mlp_ratio: Hidden width of the MLP over `embed_dim`.
            eps: Of the layer norms.
        """
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.attn = Attention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))

    def forward(self, x: Tensor, rope: Rotation | None, mask: Tensor | None = None) -> Tensor:
        """Map (B, tokens, embed_dim) to (B, tokens, embed_dim)."""
        x = x + self.attn(self.norm1(x), rope, mask)
        return x + self.mlp(self.norm2(x))


class CrossAttention(nn.Module):
    """Queries attend to tokens; there is no projection afterwards."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        """Create the projections."""
        super().__init__()
        self.num_heads = num_heads
        self.q = Linear(embed_dim, embed_dim)
        self.kv = Linear(embed_dim, 2 * embed_dim)  # rows: keys, values

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map (B, Q, embed_dim) queries and (B, N, embed_dim) tokens to (B, Q, embed_dim)."""
        heads = self.num_heads
        q = rearrange(self.q(queries), "b q (heads d) -> b heads q d", heads=heads)
        k, v = rearrange(
            self.kv(tokens), "b n (two heads d) -> two b heads n d", two=2, heads=heads
        )
        return attention(q, k, v)


class CrossAttentionBlock(nn.Module):
    """queries + attention(queries, norm1(tokens)), then x + mlp(norm2(x))."""

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_ratio: float, eps: float = NORM_EPS
    ) -> None:
        """Create the block; arguments as for `Block`."""
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=eps)
        self.xattn = CrossAttention(embed_dim, num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=eps)
        self.mlp = MLP(embed_dim, int(embed_dim * mlp_ratio))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Map (B, Q, embed_dim) queries and (B, N, embed_dim) tokens to (B, Q, embed_dim)."""
        x = queries + self.xattn(queries, self.norm1(tokens))
        return x + self.mlp(self.norm2(x))


class Blocks(nn.ModuleList):
    """Blocks of one size, one after the other."""

    def __init__(
        self,
        depth: int,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float,
        eps: float = NORM_EPS,
    ) -> None:
        """Create `depth` blocks; the other arguments as for `Block`."""
        super().__init__(Block(embed_dim, num_heads, mlp_ratio, eps) for _ in range(depth))

    def __iter__(self) -> Iterator[Block]:
        """Iterate over the blocks."""
        return cast("Iterator[Block]", super().__iter__())

    def __getitem__(self, number: int) -> Block:
        """Return one block."""
        return cast(Block, super().__getitem__(number))


def init_transformer(module: nn.Module, blocks: Blocks | None = None) -> None:
    """Initialise as published: normal 0.02 (cut at 2), residual outputs scaled by depth.

    Reference: V-JEPA 2, `src/models/vision_transformer.py::_init_weights, _rescale_blocks`.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv3d):
            nn.init.trunc_normal_(part.weight, std=INIT_STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        for number, block in enumerate(blocks or (), start=1):
            block.attn.proj.weight.div_(math.sqrt(2.0 * number))
            block.mlp.fc2.weight.div_(math.sqrt(2.0 * number))
