"""A decoder from the latents of one frame to its picture, to look at what a model imagines.

Nothing is trained through it. It is feed-forward, as the published frame decoder (V-JEPA 2,
arXiv 2506.09985, appendix B), whose weights were never released. A token may stand for 64x64
pixels: one linear map to them all would hold most of the parameters and share nothing between
places, so the picture grows from the grid of tokens in stages that double its resolution.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn

from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer

HEAD_DIM = 32
MLP_RATIO = 4.0
NARROWEST = 16
"""Channels at which the stages stop halving."""
DARKEST = 0.02
"""The background is kept this far from black and white, where a sigmoid no longer learns."""


class FrameDecoder(nn.Module):
    """Transformer blocks on the grid of tokens, then convolutions that double the resolution."""

    background: Tensor

    def __init__(
        self,
        grid: tuple[int, int],
        latent_dim: int,
        patch_size: int,
        embed_dim: int = 128,
        depth: int = 2,
    ) -> None:
        """Create the decoder.

        Args:
            grid: Rows and columns of tokens of a frame.
            latent_dim: Width D of the latents.
            patch_size: Patch side, pixels, a power of two; the picture is (rows * patch_size,
                columns * patch_size).
            embed_dim: Width of the blocks, a multiple of 32; each stage has half the channels of
                the one before, and at least 16.
            depth: Number of blocks.

        Raises:
            ValueError: When `patch_size` or `embed_dim` is another number.
        """
        super().__init__()
        if patch_size < 2 or patch_size & (patch_size - 1):
            raise ValueError(f"`patch_size` must be a power of two of at least 2, got {patch_size}")
        if embed_dim < HEAD_DIM or embed_dim % HEAD_DIM:
            raise ValueError(
                f"`embed_dim` must be a positive multiple of {HEAD_DIM}, got {embed_dim}"
            )
        self.sizes = {
            "grid": tuple(grid),
            "latent_dim": latent_dim,
            "patch_size": patch_size,
            "embed_dim": embed_dim,
            "depth": depth,
        }
        rows, columns = grid
        self.embed = nn.Linear(latent_dim, embed_dim)
        # Latents may be centred at each place, so that they do not tell where they are.
        self.places = nn.Parameter(torch.zeros(rows * columns, embed_dim))
        self.blocks = Blocks(depth, embed_dim, embed_dim // HEAD_DIM, MLP_RATIO)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        doublings = patch_size.bit_length() - 1
        widths = [max(NARROWEST, embed_dim >> number) for number in range(doublings + 1)]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2), nn.GELU()]
        last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.stages = nn.Sequential(*layers, last)
        self.stages.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        # Not trained: Adam moves every pixel alike, often seen or not, which shows as speckles.
        self.register_buffer("background", torch.zeros(rows * patch_size, columns * patch_size, 3))
        init_transformer(self, self.blocks)
        nn.init.trunc_normal_(self.places, std=0.02)
        for layer in self.stages:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)  # begins with the background

    @torch.no_grad()
    def set_background(self, picture: Tensor) -> None:
        """Begin with a picture, the mean of many frames: what never moves need not be learnt.

        Args:
            picture: (Y, X, 3) float in [0, 1].
        """
        self.background.copy_(picture.logit(DARKEST))

    def forward(self, latents: Tensor) -> Tensor:
        """Draw frames, each alone.

        Args:
            latents: (B, N, D), row-major, layer-normed as `WorldModel.encode` gives them.

        Returns:
            (B, Y, X, 3) float32 in [0, 1].

        Raises:
            ValueError: When the latents are of another grid or width.
        """
        expected = (len(self.places), self.embed.in_features)
        if latents.ndim != 3 or latents.shape[1:] != expected:
            raise ValueError(f"`latents` must be (B, {expected}), got {tuple(latents.shape)}")
        x = self.embed(latents) + self.places
        for block in self.blocks:
            x = block(x, None)
        rows, columns = self.sizes["grid"]
        x = rearrange(self.norm(x), "b (y x) d -> b d y x", y=rows, x=columns)
        picture = rearrange(self.stages(x), "b colour y x -> b y x colour")
        return (picture.float() + self.background).sigmoid()
