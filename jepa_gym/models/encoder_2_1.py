"""The video transformer of V-JEPA 2.1.

What differs from V-JEPA 2: the rotary embedding is a true rotation; rows and columns of any picture
are spread over those of a 256-pixel one; a single frame has its own patch embedding; a learned
vector tells pictures from videos; four blocks have an output norm each, the last block's among
them.

Reference: arXiv 2603.14482; `app/vjepa_2_1/models/vision_transformer.py` and
`utils/modules.py`, `src/hub/backbones.py::_make_vjepa2_1_model`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from jepa_gym.models.encoder import PatchEmbed, VideoTransformer
from jepa_gym.models.rope import Rotation, grid_rotation
from jepa_gym.models.transformer import NORM_EPS, init_transformer

TRAINED_PIXELS = 256
"""Picture side whose rows and columns give the positions of every other size."""
NORMED = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39), 48: (11, 23, 37, 47)}
"""By depth, the blocks that have an output norm."""


class VideoTransformer21(VideoTransformer):
    """As `VideoTransformer`; a video of one frame is a picture, with tokens of one frame."""

    def __init__(
        self,
        embed_dim: int,
        depth: int,
        num_heads: int,
        patch_size: int = 16,
        tubelet_size: int = 2,
        mlp_ratio: float = 4.0,
    ) -> None:
        """Create the encoder; arguments as for `VideoTransformer`.

        Raises:
            ValueError: When no published model has this depth.
        """
        super().__init__(
            embed_dim, depth, num_heads, patch_size, tubelet_size, mlp_ratio, rope="interleaved"
        )
        if depth not in NORMED:
            raise ValueError(f"`depth` must be one of {tuple(NORMED)}, got {depth}")
        del self.norm  # norms_block takes its place
        self.normed = NORMED[depth]
        self.patch_embed_img = PatchEmbed(embed_dim, patch_size, 1)
        self.norms_block = nn.ModuleList(nn.LayerNorm(embed_dim, eps=NORM_EPS) for _ in self.normed)
        self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, embed_dim))
        init_transformer(self.patch_embed_img)
        nn.init.normal_(self.img_mod_embed, std=1e-6)
        nn.init.normal_(self.video_mod_embed, std=1e-6)

    def _embed(self, video: Tensor) -> Tensor:
        picture = video.ndim == 5 and video.shape[2] == 1
        self._check(video, 1 if picture else self.tubelet_size)
        if min(video.shape[3:]) < 2 * self.patch_size:
            raise ValueError(
                f"`video` must be at least 2 patches ({2 * self.patch_size} pixels) high and wide, "
                f"got {tuple(video.shape)}"
            )
        x = (self.patch_embed_img if picture else self.patch_embed)(video)
        kind = self.img_mod_embed if picture else self.video_mod_embed
        return x + kind.view(1, -1, 1, 1, 1)

    def _rotation(self, frames: int, grid: tuple[int, int], device: torch.device) -> Rotation:
        span = TRAINED_PIXELS // self.patch_size
        return grid_rotation(frames, grid, self.head_dim, self.rope, device, span)

    def _output_norm(self, block: int, x: Tensor) -> Tensor:
        if block not in self.normed:
            raise ValueError(f"`out_layers` may name the blocks {self.normed} only, got {block}")
        return self.norms_block[self.normed.index(block)](x)
