"""The encoder of the joint recipe: a small convolutional stem, then transformer blocks.

Unlike the published encoder it is trained together with the predictor, without a moving-average
copy; the batch norm at its end keeps every token location spread out.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from jepa_gym.config import EncoderConfig, WorldModelConfig
from jepa_gym.models.rope import grid_rotation
from jepa_gym.models.statistics import Statistics
from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer
from jepa_gym.preprocess import IMAGENET_MEAN, IMAGENET_STD


class PerLocationBatchNorm(Statistics):
    """Batch norm with separate statistics for every token location and channel, no affine part."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self, num_tokens: int, latent_dim: int, momentum: float = 0.02, eps: float = 1e-5
    ) -> None:
        """Create the running statistics.

        Args:
            num_tokens: Token locations N.
            latent_dim: Channels D.
            momentum: Weight of a new batch in the running statistics.
            eps: Added to the variance.
        """
        super().__init__()
        self.momentum, self.eps = momentum, eps
        size = (num_tokens, latent_dim)
        self.register(running_mean=torch.zeros(size), running_var=torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, N, D) over the batch, or by the running statistics in eval mode.

        The result is float32, under autocast too.
        """
        out = F.batch_norm(
            x.flatten(1).float(),
            self.running_mean.view(-1),
            self.running_var.view(-1),
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )
        return out.view_as(x)


class ConvEncoder(nn.Module):
    """Frames to tokens: strided convolutions, blocks, projection, per-location batch norm."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    @classmethod
    def for_model(cls, config: WorldModelConfig, folder: Path | None = None) -> ConvEncoder:
        """Create the encoder of a world model; it needs no folder."""
        return cls(config.encoder, config.grid)

    def __init__(self, config: EncoderConfig, grid: tuple[int, int]) -> None:
        """Create the encoder.

        Args:
            config: Sizes; `config.patch_size` is the total stride.
            grid: Rows and columns of tokens of a frame.
        """
        super().__init__()
        self.config, self.grid = config, grid
        halvings = int(math.log2(config.patch_size)) - 2
        widths = [max(16, config.embed_dim >> (halvings - i)) for i in range(halvings)] + [
            config.embed_dim
        ]
        # Non-overlapping 4x4 patches first: the full-resolution layers would cost the most.
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=4), nn.GELU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GELU()]
        self.stem = nn.Sequential(*layers[:-1])
        self.stem.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.blocks = Blocks(config.depth, config.embed_dim, config.num_heads, config.mlp_ratio)
        self.norm = nn.LayerNorm(config.embed_dim, eps=NORM_EPS)
        self.proj = nn.Linear(config.embed_dim, config.latent_dim)
        self.output_norm = PerLocationBatchNorm(grid[0] * grid[1], config.latent_dim)
        init_transformer(self, self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Encode frames, each alone.

        Args:
            images: (B, 3, Y, X) float, ImageNet-normalised; fastest in channels-last memory.

        Returns:
            (B, N, D) batch-normalised tokens, row-major.
        """
        x = rearrange(self.stem(images), "b c rows columns -> b (rows columns) c")
        head_dim = self.config.embed_dim // self.config.num_heads
        rope = grid_rotation(1, self.grid, head_dim, self.config.rope, x.device)
        for block in self.blocks:
            x = block(x, rope)
        return self.output_norm(self.proj(self.norm(x)))
