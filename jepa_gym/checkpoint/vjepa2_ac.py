"""V-JEPA 2-AC as a world model: its published weights, and what they leave unsaid.

A published file holds weights only. The rest is known from its training (V-JEPA 2, arXiv
2506.09985, section 3 and `configs/train/vitg16/droid-256px-8f.yaml` of its repository): frames of
DROID's left camera squashed to 256x256, each encoded alone; raw states and actions; rotary
embedding `v2`; 8 frames. It was configured with 4 frames a second, but DROID's videos run faster
than the robot did, so a step is about a second of real motion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_gym.checkpoint import published
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.published_config import IMAGE_SIZE, infer
from jepa_gym.checkpoint.weights import Weights, open_weights
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models.ac_predictor import EXTRINSICS_DIM

STEP_S = 1.0
TRAIN_FRAMES = 8
_PREDICTOR_KEY = "action_encoder.weight"
_EXTRINSICS = "extrinsics_encoder."


def read(path: Path, encoder: Path | None = None) -> tuple[WorldModelConfig, dict[str, Tensor]]:
    """Read a published action-conditioned predictor and its encoder.

    Args:
        path: Holds the predictor.
        encoder: Holds the encoder; by default the same file, as in `vjepa2-ac-vitg.pt`.

    Returns:
        The configuration and the state dict of a `WorldModel`.

    Raises:
        FileNotFoundError: When a file is missing.
        CheckpointError: When one is damaged, the predictor is of another kind, or there is no
            encoder.
    """
    weights = open_weights(path)
    encoder_weights = weights if encoder is None else open_weights(encoder)
    predictor, head = _predictor(weights)
    part = _encoder_part(weights, encoder_weights)
    tensors = published.read_part(encoder_weights, part)
    return (
        _config(infer("encoder", tensors, encoder_weights.path), head),
        {f"encoder.{name}": x for name, x in tensors.items()}
        | {f"predictor.{name}": x for name, x in predictor.items()},
    )


def _predictor(weights: Weights) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the predictor's tensors and configuration."""
    predictor = published.read_part(weights, "predictor")
    if _PREDICTOR_KEY not in predictor:
        kind = "the masked predictor of pre-training" if "mask_tokens.0" in predictor else "another"
        raise CheckpointError(
            f"the predictor in {weights.path} is {kind}, not conditioned on actions "
            f"(`{_PREDICTOR_KEY}` is missing): no world model. Read its encoder with "
            "jepa_gym.checkpoint.published.load(path, 'encoder') and post-train a predictor"
        )
    config = infer("ac_predictor", predictor, weights.path)
    if published.is_jepa_wms(weights) and not any(n.startswith(_EXTRINSICS) for n in predictor):
        # jepa-wms builds this layer only for models that use it; here it is never called.
        width = len(predictor[_PREDICTOR_KEY])
        predictor[f"{_EXTRINSICS}weight"] = torch.zeros(width, EXTRINSICS_DIM)
        predictor[f"{_EXTRINSICS}bias"] = torch.zeros(width)
    return predictor, config


def _encoder_part(weights: Weights, encoder_weights: Weights) -> str:
    """Return which encoder of a file belongs to the predictor.

    A file of V-JEPA 2-AC has the frozen one twice, and the published loader takes `encoder`. If it
    lies in another file, the original was trained on `target_encoder`, the predictor of jepa-wms
    on `encoder`.
    """
    held = published.parts_of(encoder_weights)
    online_first = encoder_weights is weights or published.is_jepa_wms(weights)
    order = ("encoder", "target_encoder") if online_first else ("target_encoder", "encoder")
    for part in order:
        if part in held:
            return part
    raise CheckpointError(
        f"{encoder_weights.path} has no encoder, only {', '.join(held)}. Name the file of the "
        "encoder its predictor was trained on (V-JEPA 2 ViT-g): "
        "WorldModel.from_pretrained(source, encoder='vjepa2-vitg') or a path to vitg.pt"
    )


def _config(sizes: dict[str, Any], head: dict[str, Any]) -> WorldModelConfig:
    """Return the configuration of a published encoder and predictor."""
    if sizes["v2_1"]:
        raise CheckpointError(
            "the encoder is one of V-JEPA 2.1, for which no action-conditioned predictor is "
            "published: no world model. Read it with "
            "jepa_gym.checkpoint.published.load(path, 'encoder')"
        )
    return WorldModelConfig(
        frame=FrameSpec(
            IMAGE_SIZE, IMAGE_SIZE, ("droid",), step_s=STEP_S, state_convention="droid"
        ),
        encoder=EncoderConfig(
            kind="vit",
            embed_dim=sizes["embed_dim"],
            depth=sizes["depth"],
            num_heads=sizes["num_heads"],
            mlp_ratio=sizes["mlp_ratio"],
            latent_dim=sizes["embed_dim"],
            patch_size=sizes["patch_size"],
            rope="v2",
        ),
        predictor=PredictorConfig(
            embed_dim=head["predictor_embed_dim"],
            depth=head["depth"],
            num_heads=head["num_heads"],
            mlp_ratio=head["mlp_ratio"],
            rope="v2",
            use_states=head["use_states"],
        ),
        action_scale=(1.0,) * 7,
        context_frames=1,
        train_frames=TRAIN_FRAMES,
    )
