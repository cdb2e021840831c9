"""Configurations of published weights, from their shapes and the config.json beside them.

Shapes do not tell the number of heads. All published models have 64 channels a head, but for
ViT-H (80), the masked predictor (32; in V-JEPA 1 as many heads as the encoder) and the attentive
classifier (16 heads at any width).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.config import check_size
from jepa_gym.names import did_you_mean

DEFAULT_ROPE = {"ema_encoder": "interleaved"}
"""Only V-JEPA 2.1, which corrected the rotary embedding, has this part."""
IMAGE_SIZE = 256
VJEPA1_TUBELETS = 8
"""Tubelets of the clips that V-JEPA 1 was trained on, 16 frames."""
PATCH = 16
_HEAD_WIDTHS = {1280: 80}
_HEAD_WIDTH = 64
_MASKED_HEAD_WIDTH = 32
_CLASSIFIER_HEADS = 16
_ANTICIPATED = ("verb", "noun", "action")
# Our key of a configuration: the key in config.json of transformers.
_HF_KEYS: dict[str, dict[str, str]] = {
    "encoder": {"num_heads": "num_attention_heads", "img_size": "crop_size"},
    "masked_predictor": {"num_heads": "pred_num_attention_heads", "img_size": "crop_size"},
    "attentive_classifier": {"num_heads": "num_attention_heads"},
}


def infer(
    kind: str, tensors: dict[str, Tensor], path: Path, given: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the configuration of published weights.

    Args:
        kind: As for `published.load_published`.
        tensors: Published names.
        path: Where they are from; a config.json of transformers in it is read.
        given: What is known better, by the same keys.

    Returns:
        Keys of `published.load_published`.

    Raises:
        ValueError: When `kind` is unknown.
        CheckpointError: When the tensors are of another kind, or of a width with unknown heads.
    """
    if kind not in _INFER:
        hint = did_you_mean(kind, _INFER)
        raise ValueError(f"`kind` must be one of {tuple(_INFER)}, got {kind!r}.{hint}")
    theirs = hugging_face_config(path)
    known = {our: theirs[key] for our, key in _HF_KEYS.get(kind, {}).items() if key in theirs}
    for name, value in known.items():
        check_size(name, value)
    known |= given or {}
    inferred = _INFER[kind](_Shapes(kind, tensors), known)
    return {"img_size": IMAGE_SIZE, "rope": "v2"} | inferred | known


class _Shapes:
    """Shapes of tensors; a missing one is an error that names it."""

    def __init__(self, kind: str, tensors: dict[str, Tensor]) -> None:
        self.kind, self.tensors = kind, tensors

    def __call__(self, name: str) -> tuple[int, ...]:
        if name not in self.tensors:
            names = sorted(self.tensors)
            raise CheckpointError(
                f"these are not the weights of a published {self.kind}: `{name}` is missing among "
                f"{len(names)} names, which begin with {', '.join(names[:10])}"
            )
        return tuple(self.tensors[name].shape)

    def count(self, start: str) -> int:
        """Return how many numbers follow `start` in the names."""
        pattern = re.compile(rf"{re.escape(start)}(\d+)(\.|$)")
        return len({match[1] for name in self.tensors if (match := pattern.match(name))})

    def mlp_ratio(self, block: str) -> float:
        hidden, width = self(f"{block}.mlp.fc1.weight")
        return exact_ratio(hidden, width)


def trained_grid(tokens: int, path: Path) -> tuple[int, int, int]:
    """Return the grid that a position table of V-JEPA 1 is for.

    Args:
        tokens: Of the table.
        path: Where it is from, for messages.

    Raises:
        CheckpointError: When it is no square of 8 tubelets.
    """
    side = math.isqrt(tokens // VJEPA1_TUBELETS)
    if not side or side * side * VJEPA1_TUBELETS != tokens:
        raise CheckpointError(
            f"{path} has a table of {tokens} positions, which is no square in {VJEPA1_TUBELETS} "
            "tubelets as in V-JEPA 1: give `trained_grid`, `rope` and `img_size`"
        )
    return VJEPA1_TUBELETS, side, side


def exact_ratio(hidden: int, width: int) -> float:
    """Return an `mlp_ratio` from which int(width * mlp_ratio) gives exactly `hidden` again."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _heads(width: int, head_width: int, known: dict[str, Any]) -> int:
    if "num_heads" in known:
        return known["num_heads"]
    if width % head_width:
        raise CheckpointError(
            f"no published model is {width} wide with heads of {head_width} channels; "
            "give `num_heads`"
        )
    return width // head_width


def _encoder(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    width, _, tubelet, patch, _ = shapes("patch_embed.proj.weight")
    return {
        "embed_dim": width,
        "depth": shapes.count("blocks."),
        "num_heads": _heads(width, _HEAD_WIDTHS.get(width, _HEAD_WIDTH), known),
        "mlp_ratio": shapes.mlp_ratio("blocks.0"),
        "patch_size": patch,
        "tubelet_size": tubelet,
        "v2_1": "video_mod_embed" in shapes.tensors,
    }


def _predictor(shapes: _Shapes, known: dict[str, Any], head_width: int) -> dict[str, Any]:
    width, latent_dim = shapes("predictor_embed.weight")
    return {
        "embed_dim": latent_dim,
        "predictor_embed_dim": width,
        "depth": shapes.count("predictor_blocks."),
        "num_heads": _heads(width, head_width, known),
        "mlp_ratio": shapes.mlp_ratio("predictor_blocks.0"),
        "patch_size": PATCH,
    }


def _masked_predictor(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    shapes("mask_tokens.0")
    if known.get("rope") == "sincos" and "num_heads" not in known:
        latent_dim = shapes("predictor_embed.weight")[1]
        heads = _heads(latent_dim, _HEAD_WIDTHS.get(latent_dim, _HEAD_WIDTH), known)
        known = known | {"num_heads": heads}
    config = _predictor(shapes, known, _MASKED_HEAD_WIDTH)
    return config | {"num_mask_tokens": shapes.count("mask_tokens.")}


def _ac_predictor(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    action_dim = shapes("action_encoder.weight")[1]
    # jepa-wms' retrained predictor has no states, and then no layer for extrinsics either; if only
    # one of them is missing, the file is damaged, and loading names it.
    layers = {f"{name}_encoder.weight" for name in ("state", "extrinsics")}
    return _predictor(shapes, known, _HEAD_WIDTH) | {
        "action_embed_dim": action_dim,
        "use_states": not layers.isdisjoint(shapes.tensors),
    }


def _attentive_classifier(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    return {"num_classes": shapes("linear.weight")[0]} | _pooler(shapes, known)


def _anticipation_head(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    heads = {f"{name}s": shapes(f"{name}_classifier.weight")[0] for name in _ANTICIPATED}
    return heads | _pooler(shapes, known)


def _pooler(shapes: _Shapes, known: dict[str, Any]) -> dict[str, Any]:
    return {
        "embed_dim": shapes("pooler.query_tokens")[-1],
        "depth": shapes.count("pooler.blocks.") + 1,  # the last block is the cross-attention
        "num_heads": known.get("num_heads", _CLASSIFIER_HEADS),
        "mlp_ratio": shapes.mlp_ratio("pooler.cross_attention_block"),
    }


_INFER = {
    "encoder": _encoder,
    "masked_predictor": _masked_predictor,
    "ac_predictor": _ac_predictor,
    "attentive_classifier": _attentive_classifier,
    "anticipation_head": _anticipation_head,
}


def hugging_face_config(path: Path) -> dict[str, Any]:
    """Return config.json beside the weights if it is one of transformers' V-JEPA 2, else {}."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file() or not (path.is_dir() or path.suffix == ".safetensors"):
        return {}
    try:
        config = json.loads(file.read_bytes())
        return config if config.get("model_type") == "vjepa2" else {}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file} cannot be used: {error}; restore it from where the folder is from"
        ) from None
