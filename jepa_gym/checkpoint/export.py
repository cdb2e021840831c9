"""Our models in the layouts of others: the published `.pt`, and a folder of transformers.

    export.official("vitl.pt", encoder, masked_predictor)
    export.world_model("folder", model)          # V-JEPA 2-AC; from_pretrained reads it again
    export.hugging_face("folder", encoder, masked_predictor)

The weights are the same numbers under other names. Both layouts imply the rotary embedding `v2`,
so models with another are refused: there they would compute something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_gym.checkpoint.folder import CONFIG_FILE
from jepa_gym.checkpoint.hf_keys import PREFIX, to_hugging_face
from jepa_gym.checkpoint.pretrained import OFFICIAL_FILE
from jepa_gym.checkpoint.published_config import exact_ratio
from jepa_gym.checkpoint.safetensors_file import write_safetensors
from jepa_gym.checkpoint.weights import SAFETENSORS_FILE
from jepa_gym.files import atomic_write
from jepa_gym.models import (
    ActionConditionedPredictor,
    AttentiveClassifier,
    MaskedPredictor,
    VideoTransformer,
)
from jepa_gym.world_model import WorldModel

_HF_POOLER_RATIO = 4.0
"""MLP ratio of transformers' pooler, whatever its configuration says of the encoder."""
_FRAMES = 64
"""`frames_per_clip` of transformers: what its video processor samples; no tensor depends on it."""


def official(
    path: str | Path,
    encoder: VideoTransformer,
    predictor: MaskedPredictor | ActionConditionedPredictor | None = None,
) -> None:
    """Write a `.pt` with the keys `encoder`, `target_encoder` (the same) and `predictor`.

    Args:
        path: The file; it appears complete or not at all.
        encoder: A video transformer.
        predictor: One of either kind.

    Raises:
        ValueError: When a module has another rotary embedding than `v2`.
    """
    _require_v2(encoder, predictor)
    weights = _weights(encoder)
    parts = {"encoder": weights, "target_encoder": weights}  # torch stores their tensors once
    if predictor is not None:
        parts["predictor"] = _weights(predictor)
    with atomic_write(path) as temporary:
        torch.save(parts | {"epoch": 0}, temporary)


def world_model(folder: str | Path, model: WorldModel) -> None:
    """Write a world model in the layout of V-JEPA 2-AC, with our configuration beside it.

    Args:
        folder: Created when missing. Gets vjepa2-ac.pt, for the published code too, and
            config.json, from which `WorldModel.from_pretrained(folder)` knows frames and cameras.
        model: With the encoder `vit` and raw states and actions.

    Raises:
        ValueError: When the layout has no place for what the model does.
    """
    config, folder = model.config, Path(folder)
    if not isinstance(model.encoder, VideoTransformer):
        raise ValueError(
            f"the layout of V-JEPA 2-AC has only the encoder 'vit', this model has "
            f"{config.encoder.kind!r}; use `save_pretrained`"
        )
    if config.encoder.merge > 1:
        raise ValueError(
            "the layout of V-JEPA 2-AC has no place for the projection of merged tokens; use "
            "`save_pretrained`"
        )
    raw = {"state_mean": 0.0, "state_std": 1.0, "action_scale": 1.0}
    scaled = [name for name, value in raw.items() if set(getattr(config, name)) != {value}]
    if scaled:
        raise ValueError(
            f"the layout of V-JEPA 2-AC has raw states and actions, this model has its own "
            f"{', '.join(scaled)}; use `save_pretrained`"
        )
    if not config.predictor.use_states:
        raise ValueError(
            "the layout of V-JEPA 2-AC has a state token, this model has none; use "
            "`save_pretrained`"
        )
    official(folder / OFFICIAL_FILE, model.encoder, model.predictor)
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config.to_dict(), indent=2) + "\n")


def hugging_face(
    folder: str | Path,
    encoder: VideoTransformer,
    predictor: MaskedPredictor,
    classifier: AttentiveClassifier | None = None,
) -> None:
    """Write config.json and model.safetensors as transformers' V-JEPA 2 has them.

    Args:
        folder: Created when missing.
        encoder: A video transformer.
        predictor: The masked one; transformers has no model without it. Its grid gives the size of
            the picture, `crop_size`.
        classifier: An attentive one, for `VJEPA2ForVideoClassification` instead of `VJEPA2Model`.

    Raises:
        ValueError: When a module has another rotary embedding than `v2`, or transformers has no
            place for its sizes.
    """
    _require_v2(encoder, predictor)
    tensors = to_hugging_face("encoder", _weights(encoder))
    tensors |= to_hugging_face("predictor", _weights(predictor))
    config = _hf_config(encoder, predictor)
    if classifier is not None:
        tensors = {f"{PREFIX}{name}": x for name, x in tensors.items()}
        tensors |= to_hugging_face("classifier", _weights(classifier))
        config |= _hf_classes(classifier, config)
    tensors = {name: x.clone() for name, x in tensors.items()}  # safetensors takes no shared ones
    write_safetensors(Path(folder) / SAFETENSORS_FILE, tensors, {})
    with atomic_write(Path(folder) / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")


def _require_v2(*modules: nn.Module | None) -> None:
    for module in modules:
        if module is not None and module.rope != "v2":
            raise ValueError(
                f"this {type(module).__name__} has the rotary embedding {module.rope!r}, but the "
                "published code and transformers have 'v2', and would compute other features; "
                "only models with rope='v2' can be exported"
            )


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: x.detach().cpu().contiguous() for name, x in module.state_dict().items()}


def _sizes(blocks: nn.ModuleList, head_dim: int) -> tuple[int, int, int, float]:
    """Return width, depth, heads and MLP ratio."""
    hidden, width = blocks[0].get_parameter("mlp.fc1.weight").shape
    return width, len(blocks), width // head_dim, exact_ratio(hidden, width)


def _hf_config(encoder: VideoTransformer, predictor: MaskedPredictor) -> dict[str, Any]:
    rows, columns = predictor.grid
    if rows != columns:
        raise ValueError(f"transformers' V-JEPA 2 has square pictures only, got {rows}x{columns}")
    width, depth, heads, ratio = _sizes(encoder.blocks, encoder.head_dim)
    pred_width, pred_depth, pred_heads, pred_ratio = _sizes(
        predictor.predictor_blocks, predictor.head_dim
    )
    return {
        "model_type": "vjepa2",
        "architectures": ["VJEPA2Model"],
        "torch_dtype": "float32",
        "patch_size": encoder.patch_size,
        "crop_size": rows * encoder.patch_size,
        "frames_per_clip": _FRAMES,
        "tubelet_size": encoder.tubelet_size,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_hidden_layers": depth,
        "mlp_ratio": ratio,
        "pred_hidden_size": pred_width,
        "pred_num_attention_heads": pred_heads,
        "pred_num_hidden_layers": pred_depth,
        "pred_num_mask_tokens": len(predictor.mask_tokens),
        "pred_mlp_ratio": pred_ratio,
    }


def _hf_classes(classifier: AttentiveClassifier, config: dict[str, Any]) -> dict[str, Any]:
    block = classifier.pooler.cross_attention_block
    heads, ratio = block.xattn.num_heads, exact_ratio(*block.mlp.fc1.weight.shape)
    if heads != config["num_attention_heads"]:
        raise ValueError(
            "transformers has one number of heads for encoder and classifier, these have "
            f"{config['num_attention_heads']} and {heads}"
        )
    if ratio != _HF_POOLER_RATIO:
        raise ValueError(
            f"transformers' classifier has an MLP ratio of {_HF_POOLER_RATIO}, this one {ratio}"
        )
    names = {number: f"LABEL_{number}" for number in range(classifier.linear.out_features)}
    return {
        "architectures": ["VJEPA2ForVideoClassification"],
        "num_pooler_layers": len(classifier.pooler.blocks),
        "id2label": {str(number): name for number, name in names.items()},
        "label2id": {name: number for number, name in names.items()},
    }
