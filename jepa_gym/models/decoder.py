"""A decoder from the latents of one frame to its picture, to look at what a model imagines.

Nothing is trained through it. It is feed-forward, as the published frame decoder (V-JEPA 2,
arXiv 2506.09985, appendix B), whose weights were never released.
"""

from __future__ import annotations

from torch import Tensor, nn

from jepa_gym.models.blocks import NORM_EPS, Block, init_transformer
from jepa_gym.models.rope import grid_rotation


class FrameDecoder(nn.Module):
    """A small vision transformer from tokens to square patches of pixels."""

    def __init__(
        self,
        grid: tuple[int, int],
        latent_dim: int,
        patch: int,
        width: int = 192,
        depth: int = 4,
        heads: int = 3,
        mlp_ratio: float = 4.0,
    ) -> None:
        """Create the decoder.

        Args:
            grid: Rows and columns of tokens of a frame.
            latent_dim: Width D of the latents.
            patch: Patch side, pixels; the picture is (rows * patch, columns * patch).
            width: Width of the blocks.
            depth: Number of blocks.
            heads: Attention heads.
            mlp_ratio: Hidden width of an MLP over `width`.
        """
        super().__init__()
        self.grid, self.patch, self.head_dim = grid, patch, width // heads
        self.embed = nn.Linear(latent_dim, width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.pixels = nn.Linear(width, patch * patch * 3)
        init_transformer(self, self.blocks)

    def forward(self, latents: Tensor) -> Tensor:
        """Draw frames, each alone.

        Args:
            latents: (B, N, D), row-major, layer-normed as `WorldModel.encode` gives them.

        Returns:
            (B, Y, X, 3) float32 in [0, 1].

        Raises:
            ValueError: When the latents are of another grid or width.
        """
        rows, columns = self.grid
        expected = (rows * columns, self.embed.in_features)
        if latents.ndim != 3 or latents.shape[1:] != expected:
            raise ValueError(f"`latents` must be (B, {expected}), got {tuple(latents.shape)}")
        x = self.embed(latents)
        rope = grid_rotation(1, self.grid, self.head_dim, "interleaved", x.device)
        for block in self.blocks:
            x = block(x, rope)
        patches = self.pixels(self.norm(x)).float().sigmoid()
        patches = patches.unflatten(-1, (self.patch, self.patch, 3)).unflatten(1, self.grid)
        return patches.transpose(2, 3).flatten(3, 4).flatten(1, 2)
