"""The published sizes, by name.

``vit_large``, ``vit_huge`` and ``vit_giant`` are the released encoders; the smaller ones exist in
the published code without weights. V-JEPA 2.1 has ``vit_base``, ``vit_large``, ``vit_giant`` and
``vit_gigantic``. ``vit_giant`` is what that code calls `vit_giant_xformers`, with
22 heads; a `vit_giant` with 16 heads exists there too, and no weights fit it.

Reference: V-JEPA 2 (arXiv 2506.09985); `src/models/vision_transformer.py`, `src/hub/backbones.py`.
"""

from __future__ import annotations

from typing import Any

from jepa_gym.models.ac_predictor import ActionConditionedPredictor
from jepa_gym.models.encoder import VideoTransformer
from jepa_gym.models.encoder_2_1 import VideoTransformer21
from jepa_gym.models.masked_predictor import MaskedPredictor

PRESETS: dict[str, dict[str, Any]] = {
    "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0},
    "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "vit_large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "vit_huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0},
    "vit_giant": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11},
    "vit_gigantic": {"embed_dim": 1664, "depth": 48, "num_heads": 26, "mlp_ratio": 64 / 13},
}
GRID_256 = (16, 16)
"""Rows and columns of tokens of a picture of 256 x 256 pixels in patches of 16."""


def preset(name: str) -> dict[str, Any]:
    """Return a copy of the sizes called `name`.

    Raises:
        ValueError: When there are none.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return dict(PRESETS[name])


def video_transformer(name: str, rope: str = "interleaved", **changes: Any) -> VideoTransformer:
    """Create an untrained encoder of a published size.

    Args:
        name: One of `PRESETS`.
        rope: ``interleaved``, or ``v2`` for published weights.
        changes: Other arguments of `VideoTransformer`.

    Raises:
        ValueError: When `name` is unknown.
    """
    sizes: dict[str, Any] = preset(name) | {"rope": rope} | changes
    return VideoTransformer(**sizes)


def video_transformer_2_1(name: str, **changes: Any) -> VideoTransformer21:
    """Create an untrained encoder of V-JEPA 2.1.

    Args:
        name: One of `PRESETS`.
        changes: Other arguments of `VideoTransformer21`.

    Raises:
        ValueError: When `name` is unknown.
    """
    return VideoTransformer21(**preset(name) | changes)


def masked_predictor(
    encoder_name: str,
    num_mask_tokens: int = 10,
    grid: tuple[int, int] = GRID_256,
    rope: str = "interleaved",
) -> MaskedPredictor:
    """Create the untrained masked predictor of an encoder.

    Args:
        encoder_name: One of `PRESETS`, whose features it predicts.
        num_mask_tokens: 10 in the released weights.
        grid: Rows and columns of tokens of a frame.
        rope: ``interleaved``, or ``v2`` for published weights.

    Raises:
        ValueError: When `encoder_name` is unknown.
    """
    embed_dim = preset(encoder_name)["embed_dim"]
    return MaskedPredictor(grid, embed_dim, num_mask_tokens=num_mask_tokens, rope=rope)


def ac_predictor(
    rope: str = "v2", grid: tuple[int, int] = GRID_256, **changes: Any
) -> ActionConditionedPredictor:
    """Create an untrained action-conditioned predictor of the size of V-JEPA 2-AC.

    Args:
        rope: ``v2`` for published weights, or ``interleaved``.
        grid: Rows and columns of tokens of a frame.
        changes: Other arguments of `ActionConditionedPredictor`.
    """
    sizes = {
        "latent_dim": PRESETS["vit_giant"]["embed_dim"],
        "embed_dim": 1024,
        "depth": 24,
        "num_heads": 16,
    }
    return ActionConditionedPredictor(**sizes | {"grid": grid, "rope": rope} | changes)
