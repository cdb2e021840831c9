"""Absolute positions of V-JEPA 1: sines and cosines of time, row and column, added to tokens.

A third of the channels belongs to each of the three, rounded up to pairs (the last ones are cut
off): first the sines, then the cosines of all frequencies.

Reference: V-JEPA (arXiv 2404.08471), `src/models/utils/pos_embs.py` with `uniform_power`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from jepa_gym.models.rope import grid_positions

_BASE = 10000.0
_KEPT = 8
"""Tables kept for re-use."""


def sincos_embedding(positions: Tensor, embed_dim: int) -> Tensor:
    """Return the vectors of positions.

    Args:
        positions: (..., 3) time, row and column.
        embed_dim: Width of the tokens.

    Returns:
        (..., embed_dim) float32.
    """
    half = math.ceil(embed_dim / 6)
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * _BASE ** (-steps / half)  # (..., 3, half)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)[..., :embed_dim]


@lru_cache(maxsize=_KEPT)
def sincos_table(
    grid: tuple[int, int, int],
    embed_dim: int,
    device: torch.device,
    trained: tuple[int, int, int] | None = None,
) -> Tensor:
    """Return the vectors of all tokens of a grid.

    Args:
        grid: Tokens along time, rows and columns.
        embed_dim: Width of the tokens.
        device: Where the table is wanted.
        trained: The grid that published weights were trained on: its table is interpolated to
            `grid`. By default positions count 0, 1, .. in any grid.

    Returns:
        (time * rows * columns, embed_dim) float32; kept, so not to be changed.
    """
    with torch.inference_mode(False), torch.no_grad():  # a kept table must also serve training
        first, *plane = trained or grid
        table = sincos_embedding(grid_positions(first, (plane[0], plane[1]), device), embed_dim)
        if trained in (None, grid):
            return table
        volume = rearrange(
            table, "(t y x) d -> 1 d t y x", t=trained[0], y=trained[1], x=trained[2]
        )
        volume = F.interpolate(volume, grid, mode="trilinear", align_corners=False)
        return rearrange(volume, "1 d t y x -> (t y x) d")
