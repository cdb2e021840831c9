"""The video transformer of V-JEPA 2, and with absolute positions that of V-JEPA 1.

Reference: V-JEPA 2 (arXiv 2506.09985) and V-JEPA (arXiv 2404.08471);
`src/models/vision_transformer.py` of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from jepa_gym.config import WorldModelConfig
from jepa_gym.models.rope import Rotation, grid_rotation, part
from jepa_gym.models.sincos import sincos_table
from jepa_gym.models.transformer import NORM_EPS, Blocks, init_transformer
from jepa_gym.preprocess import IMAGENET_MEAN, IMAGENET_STD


class PatchEmbed(nn.Module):
    """Cuts a video into tubelets and projects each to a token."""

    def __init__(self, embed_dim: int, patch_size: int, tubelet_size: int) -> None:
        """Create the projection."""
        super().__init__()
        self.proj = nn.Conv3d(
            3,
            embed_dim,
            (tubelet_size, patch_size, patch_size),
            stride=(tubelet_size, patch_size, patch_size),
        )

    def forward(self, video: Tensor) -> Tensor:
        """Map (B, 3, T, Y, X) to (B, embed_dim, t, rows, columns)."""
        return self.proj(video)

    def patches(self, patches: Tensor) -> Tensor:
        """Project tubelets that are cut already; see `VideoTransformer.cut`."""
        kernel = rearrange(self.proj.weight, "d c t y x -> d (t y x c)")
        return F.linear(patches, kernel, self.proj.bias)


class VideoTransformer(nn.Module):
    """Tubelets, pre-norm blocks with positions along 3 axes, a final norm."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    @classmethod
    def for_model(cls, config: WorldModelConfig, folder: Path | None = None) -> VideoTransformer:
        """Create the encoder of a world model; it needs no folder."""
        sizes = config.encoder
        return cls(
            sizes.embed_dim,
            sizes.depth,
            sizes.num_heads,
            patch_size=sizes.patch_size,
            mlp_ratio=sizes.mlp_ratio,
            rope=sizes.rope,
        )

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        tubelet_size: int = 2,
        mlp_ratio: float = 4.0,
        rope: str = "interleaved",
        trained_grid: tuple[int, int, int] | None = None,
    ) -> None:
        """Create the encoder; the grid follows from each input.

        Args:
            embed_dim: Token width D.
            depth: Number of blocks.
            num_heads: Attention heads.
            patch_size: Patch side, pixels.
            tubelet_size: Frames of a token.
            mlp_ratio: Hidden width of an MLP over `embed_dim`.
            rope: Rotary positions ``interleaved``, or ``v2`` for published weights; or
                ``sincos``, the absolute ones of V-JEPA 1.
            trained_grid: With ``sincos``, the tokens along time, rows and columns that published
                weights were trained on; the positions of other inputs are interpolated.
        """
        super().__init__()
        self.patch_size, self.tubelet_size, self.rope = patch_size, tubelet_size, rope
        self.trained_grid = trained_grid
        self.head_dim = embed_dim // num_heads
        self.patch_embed = PatchEmbed(embed_dim, patch_size, tubelet_size)
        self.blocks = Blocks(depth, embed_dim, num_heads, mlp_ratio)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)
        init_transformer(self, self.blocks)

    def forward(
        self,
        video: Tensor,
        token_ids: Tensor | None = None,
        out_layers: Sequence[int] | None = None,
    ) -> Tensor | list[Tensor]:
        """Encode a video, or only some of its tokens.

        Args:
            video: (B, 3, T, Y, X) float, ImageNet-normalised.
            token_ids: (B, K) indices into the full grid (time slowest, then rows); all by default.
            out_layers: Ascending numbers of blocks, from 0, whose outputs are wanted; the last
                block's by default.

        Returns:
            (B, K, D), or (B, t * rows * columns, D), after the final norm. With `out_layers` a
            list of them, one for each block named.

        Raises:
            ValueError: When the video is not 5-D, its size is no multiple of the tubelet, or
                `out_layers` does not name blocks in ascending order.
        """
        last = len(self.blocks) - 1
        wanted = [last] if out_layers is None else list(out_layers)
        if not wanted or wanted != sorted(set(wanted)) or wanted[0] < 0 or wanted[-1] > last:
            raise ValueError(f"`out_layers` must ascend within 0 .. {last}, got {wanted}")
        x = self._embed(video)
        grid = (x.shape[2], x.shape[3], x.shape[4])
        x = rearrange(x, "b d t rows columns -> b (t rows columns) d")
        x = x.contiguous()  # a view slows every block
        if token_ids is not None:
            x = torch.take_along_dim(x, token_ids[..., None], dim=1)
        outputs = self._outputs(x, grid, token_ids, wanted)
        return outputs[0] if out_layers is None else outputs

    def cut(self, frames: Tensor) -> Tensor:
        """Cut a video into the tubelets of its tokens.

        Args:
            frames: (B, T, Y, X, 3) of any kind of number.

        Returns:
            (B, t * rows * columns, tubelet_size * patch_size**2 * 3), colours last.
        """
        self._check(frames.movedim(-1, 1), self.tubelet_size)
        return rearrange(
            frames,
            "b (t u) (rows y) (columns x) c -> b (t rows columns) (u y x c)",
            u=self.tubelet_size,
            y=self.patch_size,
            x=self.patch_size,
        )

    def encode_patches(
        self, patches: Tensor, grid: tuple[int, int, int], token_ids: Tensor | None = None
    ) -> Tensor:
        """Encode some tokens of a video without embedding the others.

        Args:
            patches: (B, K, ...) of `cut`, of these tokens alone, ImageNet-normalised.
            grid: Tokens of the whole video along time, rows and columns.
            token_ids: (B, K) their indices in the grid; None for all of it.

        Returns:
            (B, K, D), as `forward` of the whole video.
        """
        x = self.patch_embed.patches(patches)
        return self._outputs(x, grid, token_ids, [len(self.blocks) - 1])[0]

    def _outputs(
        self, x: Tensor, grid: tuple[int, int, int], token_ids: Tensor | None, wanted: list[int]
    ) -> list[Tensor]:
        """Give tokens (B, K, D) their positions and return what these blocks make of them."""
        frames, rows, columns = grid
        rope = None
        if self.rope == "sincos":
            table = sincos_table(grid, x.shape[-1], x.device, self.trained_grid).to(x.dtype)
            x = x + (table if token_ids is None else table[token_ids])
        else:
            rope = self._rotation(frames, (rows, columns), x.device)
            rope = rope if token_ids is None else part(rope, token_ids)
        outputs = []
        for number, block in zip(range(wanted[-1] + 1), self.blocks, strict=False):
            x = block(x, rope)
            if number in wanted:
                outputs.append(self._output_norm(number, x))
        return outputs

    def _embed(self, video: Tensor) -> Tensor:
        """Map (B, 3, T, Y, X) to (B, D, t, rows, columns)."""
        self._check(video, self.tubelet_size)
        return self.patch_embed(video)

    def _check(self, video: Tensor, tubelet_size: int) -> None:
        sizes = (tubelet_size, self.patch_size, self.patch_size)
        if video.ndim != 5 or any(n % s for n, s in zip(video.shape[2:], sizes, strict=True)):
            raise ValueError(
                f"`video` must be (B, 3, T, Y, X) with T, Y, X multiples of {sizes}, "
                f"got {tuple(video.shape)}"
            )

    def _rotation(self, frames: int, grid: tuple[int, int], device: torch.device) -> Rotation:
        return grid_rotation(frames, grid, self.head_dim, self.rope, device)

    def _output_norm(self, block: int, x: Tensor) -> Tensor:
        """Return the output of the block with this number as a user gets it."""
        return self.norm(x)
