"""Where `WorldModel.from_pretrained` finds a model, and what a published file leaves unsaid.

A published V-JEPA 2-AC file holds weights only. The rest is known from its training (facts 4.5 to
4.8): frames of DROID's left camera squashed to 256x256, each encoded alone; raw states and actions;
rotary embedding `v2`; 8 frames. It was configured with 4 frames a second, but DROID's videos run
faster than the robot did, so a step is about a second of real motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_gym.checkpoint import download as hub
from jepa_gym.checkpoint import folder as checkpoints
from jepa_gym.checkpoint import published
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.published_config import IMAGE_SIZE, infer
from jepa_gym.checkpoint.weights import Weights, open_weights
from jepa_gym.config import EncoderConfig, FrameSpec, PredictorConfig, WorldModelConfig
from jepa_gym.models.ac_predictor import EXTRINSICS_DIM

OFFICIAL_FILE = "vjepa2-ac.pt"
"""Weights of published names in a folder that `export.world_model` wrote."""
STEP_S = 1.0
TRAIN_FRAMES = 8
_PREDICTOR_KEY = "action_encoder.weight"
_EXTRINSICS = "extrinsics_encoder."


@dataclass(frozen=True)
class Pretrained:
    """What a world model is made of.

    Attributes:
        path: The file or folder of the weights, for messages.
        folder: The folder, where there may be start frames; None for a single file.
        config: The model's configuration.
        tensors: Its state dict.
    """

    path: Path
    folder: Path | None
    config: WorldModelConfig
    tensors: dict[str, Tensor]


def read(
    source: str | Path, encoder: str | Path | None = None, local_files_only: bool = False
) -> Pretrained:
    """Read a world model from wherever it is.

    Args:
        source: As for `WorldModel.from_pretrained`.
        encoder: The same.
        local_files_only: The same.

    Raises:
        FileNotFoundError: When nothing is found.
        CheckpointError: When it cannot be used.
        jepa_gym.checkpoint.download.DownloadError: When a download fails or is not allowed.
    """
    path = locate(source, local_files_only)
    if path.is_dir() and not (path / OFFICIAL_FILE).is_file():
        _refuse_hugging_face(path)
        return Pretrained(path, path, *checkpoints.read(path))
    known = hub.REGISTRY.get(str(source))
    if encoder is None and known is not None and known.encoder is not None:
        encoder = known.encoder
    folder = path if path.is_dir() else None
    weights = open_weights(path / OFFICIAL_FILE if folder else path)
    encoder_weights = weights
    if encoder is not None:
        encoder_weights = open_weights(locate(encoder, local_files_only))
    config, tensors = read_published(weights, encoder_weights)
    if folder:
        config = checkpoints.read_config(folder)
    return Pretrained(path, folder, config, tensors)


def locate(source: str | Path, local_files_only: bool = False) -> Path:
    """Return the file or folder of a shipped, a local or a registered model.

    Raises:
        FileNotFoundError: When it is none of these.
        jepa_gym.checkpoint.download.DownloadError: When a download fails or is not allowed.
    """
    if str(source) not in checkpoints.SHIPPED and Path(source).is_file():
        return Path(source)
    if str(source) in hub.REGISTRY and not Path(source).is_dir():
        return hub.fetch(str(source), local_files_only)
    return checkpoints.resolve(source)


def read_published(
    weights: Weights, encoder_weights: Weights
) -> tuple[WorldModelConfig, dict[str, Tensor]]:
    """Read a published action-conditioned predictor and its encoder.

    Args:
        weights: Holds the predictor.
        encoder_weights: Holds the encoder; the same file in `vjepa2-ac-vitg.pt`.

    Returns:
        The configuration and the state dict of a `WorldModel`.

    Raises:
        CheckpointError: When the predictor is of another kind, or there is no encoder.
    """
    predictor, head = _predictor(weights)
    part = _encoder_part(weights, encoder_weights)
    encoder = published.read_part(encoder_weights, part)
    return (
        _config(infer("encoder", encoder, encoder_weights.path), head),
        {f"encoder.{name}": x for name, x in encoder.items()}
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
    on `encoder` (facts 4.5, 8.5).
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


def _refuse_hugging_face(folder: Path) -> None:
    if published.is_hugging_face(folder):
        raise CheckpointError(
            f"{folder} is a V-JEPA 2 folder of Hugging Face's transformers, which has no "
            "action-conditioned predictor: no world model. Read its encoder with "
            "jepa_gym.checkpoint.published.load(folder, 'encoder') and post-train a predictor"
        )
