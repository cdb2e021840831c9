"""Which tokens of a clip are hidden in masked pre-training.

Each mask is a union of blocks that span the whole clip; what is left is the visible context. The
size of the blocks is drawn once per batch, their places per sample, and all samples are trimmed to
the shortest, so that a batch is one tensor.

Reference: V-JEPA 2 (arXiv 2506.09985), section 2.1 and its public `multiseq_multiblock3d.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ASPECT_RATIO = (0.75, 1.5)
ATTEMPTS = 200
"""Draws of one mask before it is given up: almost none needs a second."""


@dataclass(frozen=True, slots=True)
class MaskConfig:
    """One kind of mask."""

    blocks: int
    """Blocks whose union is hidden."""
    spatial_scale: float
    """Area of one block as a fraction of the frame."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.blocks < 1 or not 0 < self.spatial_scale < 1:
            raise ValueError(
                "`blocks` must be at least 1 and `spatial_scale` in (0, 1), "
                f"got {self.blocks} and {self.spatial_scale}"
            )


PUBLISHED = (MaskConfig(blocks=8, spatial_scale=0.15), MaskConfig(blocks=2, spatial_scale=0.70))
"""The short-range and the long-range mask of V-JEPA 2; every clip gets both."""


def sample_masks(
    grid: tuple[int, int, int], batch: int, config: MaskConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the visible and the hidden tokens of a batch of clips.

    Args:
        grid: Tokens along time, rows and columns.
        batch: B.
        config: Kind of mask.
        generator: Source of randomness.

    Returns:
        Context ids (B, K) and target ids (B, M), ascending indices into the full grid.

    Raises:
        ValueError: One block would hide the whole frame.
    """
    frames, rows, columns = grid
    height, width = _block_size(rows, columns, config.spatial_scale, generator)
    if height == rows and width == columns:
        raise ValueError(
            f"a block of {config.spatial_scale} of the area hides the whole {rows}x{columns} grid "
            "of tokens; use larger frames or smaller patches"
        )
    planes = torch.stack(
        [_plane(rows, columns, height, width, config.blocks, generator) for _ in range(batch)]
    )
    hidden = planes[:, None].expand(-1, frames, -1, -1).flatten(1)  # (B, frames * rows * columns)
    return _ids(~hidden), _ids(hidden)


def _block_size(
    rows: int, columns: int, scale: float, generator: torch.Generator
) -> tuple[int, int]:
    low, high = ASPECT_RATIO
    aspect = low + (high - low) * torch.rand((), generator=generator).item()
    area = int(rows * columns * scale)
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(height, 1), rows), min(max(width, 1), columns)


def _plane(
    rows: int, columns: int, height: int, width: int, blocks: int, generator: torch.Generator
) -> Tensor:
    """Draw block places until something stays visible; (rows, columns), True where hidden.

    Raises:
        ValueError: If the blocks hide everything again and again.
    """
    for _ in range(ATTEMPTS):
        hidden = torch.zeros(rows, columns, dtype=torch.bool)
        for _ in range(blocks):
            top = int(torch.randint(rows - height + 1, (), generator=generator))
            left = int(torch.randint(columns - width + 1, (), generator=generator))
            hidden[top : top + height, left : left + width] = True
        if not hidden.all():
            return hidden
    raise ValueError(
        f"{blocks} blocks of {height}x{width} tokens hid the whole {rows}x{columns} grid in each "
        f"of {ATTEMPTS} draws; use fewer or smaller blocks"
    )


def _ids(chosen: Tensor) -> Tensor:
    """Return the indices of True, every row trimmed to the shortest (the last ones go)."""
    kept = int(chosen.sum(1).min())
    return torch.stack([row.nonzero()[:kept, 0] for row in chosen])
