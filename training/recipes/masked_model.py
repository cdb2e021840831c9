"""What masked pre-training trains: an encoder, its moving average and a masked predictor.

Reference: V-JEPA 2 (arXiv 2506.09985), section 2.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepa_gym.config import PredictorConfig
from jepa_gym.models import MaskedPredictor, VideoTransformer
from jepa_gym.normalisation import layer_norm
from jepa_gym.training.recipes.masks import PUBLISHED, MaskConfig, sample_masks
from jepa_gym.world_model import WorldModel


class MaskedModel(nn.Module):
    """Encoder, its moving average and the masked predictor."""

    def __init__(
        self,
        world_model: WorldModel,
        predictor: PredictorConfig,
        frames: int,
        own_mask_tokens: bool = False,
        masks: Sequence[MaskConfig] = PUBLISHED,
    ) -> None:
        """Create the parts.

        Args:
            world_model: Gives the encoder and the normalisation of pixels.
            predictor: Sizes of the masked predictor.
            frames: T of a clip.
            own_mask_tokens: Whether each kind of mask has a mask token of its own.
            masks: The kinds of mask; every clip gets each.
        """
        super().__init__()
        self.masks = tuple(masks)
        if not isinstance(world_model.encoder, VideoTransformer):
            raise TypeError("masked pre-training needs an encoder of kind `vit`")
        self.encoder = world_model.encoder
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        config = world_model.config
        self.predictor = MaskedPredictor(
            config.grid,
            config.encoder.latent_dim,
            predictor.embed_dim,
            predictor.depth,
            predictor.num_heads,
            num_mask_tokens=len(masks) if own_mask_tokens else 1,
            mlp_ratio=predictor.mlp_ratio,
            rope=predictor.rope,
        )
        self.grid = (frames // self.encoder.tubelet_size, *config.grid)
        self.normaliser = world_model.normaliser

    def draw_masks(
        self, batch: int, generator: torch.Generator, tubelets: int | None = None
    ) -> dict[str, Tensor]:
        """Draw what is seen and hidden of each clip, for every kind of mask.

        Args:
            batch: B.
            generator: On the CPU.
            tubelets: Of a clip; those of the model's clips by default.

        Returns:
            `seen_k` (B, K) and `hidden_k` (B, M), indices into the grid of tokens.
        """
        grid = (tubelets or self.grid[0], *self.grid[1:])
        masks = {}
        for kind, config in enumerate(self.masks):
            pair = sample_masks(grid, batch, config, generator)
            masks[f"seen_{kind}"], masks[f"hidden_{kind}"] = pair
        return masks

    def predictions(
        self, frames: Tensor, masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Encode clips and predict their hidden parts.

        Args:
            frames: (B, T, Y, X, 3) uint8, or float in [0, 255].
            masks: From `draw_masks`.

        Returns:
            The average's layer-normed features of the whole clips (B, tokens, D), and for every
            kind of mask predictions and targets, both (B, M, D) float32.
        """
        patches = self.encoder.cut(frames)
        grid = (frames.shape[1] // self.encoder.tubelet_size, *self.grid[1:])
        clip = torch.arange(len(patches), device=patches.device)[:, None]
        with torch.no_grad():
            pixels = self._pixels(patches)
            whole = layer_norm(self.target_encoder.encode_patches(pixels, grid).float())
        pairs = []
        for kind in range(len(self.masks)):
            seen, hidden = masks[f"seen_{kind}"], masks[f"hidden_{kind}"]
            pixels = self._pixels(patches[clip, seen])
            context = self.encoder.encode_patches(pixels, grid, seen)
            predicted = self.predictor(context, seen, hidden, mask_index=kind)
            pairs.append((predicted.float(), torch.take_along_dim(whole, hidden[..., None], dim=1)))
        return whole, pairs

    def _pixels(self, patches: Tensor) -> Tensor:
        """Standardise patches (B, K, ...), colours last."""
        return self.normaliser.pixels(patches.unflatten(-1, (-1, 3))).flatten(-2)

    def loss(self, frames: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
        """Return the masked prediction loss, the mean over the kinds of mask."""
        _, pairs = self.predictions(frames, masks)
        return torch.stack([F.l1_loss(predicted, target) for predicted, target in pairs]).mean()

    @torch.no_grad()
    def update_target_encoder(self, momentum: float) -> None:
        """Move the average a step towards the encoder."""
        slow, fast = (list(x.parameters()) for x in (self.target_encoder, self.encoder))
        torch._foreach_lerp_(slow, fast, 1 - momentum)
