"""Published weights: which tensors a file holds, under which names, and the modules they fill.

What is read: the `.pt` files of V-JEPA 2 and V-JEPA 2-AC (`encoder`, `target_encoder`,
`ema_encoder`, `predictor`, `classifiers`), those of V-JEPA 1, those of jepa-wms (`proprio_encoder`
for `state_encoder`), folders of Hugging Face's transformers, bare state dicts, and our own
checkpoints. `module.` and `backbone.` in a name are dropped, as is the table `pos_embed`: V-JEPA 2
does not use it, and that of V-JEPA 1 is computed.

    encoder = published.load("vitl.pt", "encoder")
    weights = published.read_weights("vjepa2-ac-vitg.pt", "predictor")

Reference: V-JEPA 2 (arXiv 2506.09985), its repository and `configuration_vjepa2.py` of
transformers, for the names.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jepa_gym.checkpoint import hf_keys
from jepa_gym.checkpoint.errors import CheckpointError
from jepa_gym.checkpoint.fill import fill
from jepa_gym.checkpoint.published_config import DEFAULT_ROPE, PATCH, infer, trained_grid
from jepa_gym.checkpoint.sources import locate
from jepa_gym.checkpoint.weights import Weights, open_weights
from jepa_gym.models import (
    ActionConditionedPredictor,
    AnticipationHead,
    AttentiveClassifier,
    MaskedPredictor,
    VideoTransformer,
    VideoTransformer21,
)
from jepa_gym.names import did_you_mean

ENCODER_PARTS = ("target_encoder", "ema_encoder", "encoder")
"""In the order of preference: the published evaluations use the moving average."""
_SINGLE = (*ENCODER_PARTS, "predictor")
_PROBES = ("attentive_classifier", "anticipation_head")
_WRAPPERS = ("module", "backbone")
_UNUSED = ("pos_embed", "predictor_pos_embed")
# A bare state dict is recognised by one of its names.
_FINGERPRINTS = {
    "patch_embed.proj.weight": "encoder",
    "predictor_embed.weight": "predictor",
    "pooler.query_tokens": "classifier",
}


def load_published(kind: str, state_dict: dict[str, Tensor], config: dict[str, Any]) -> nn.Module:
    """Build a published module and load its weights.

    Args:
        kind: `encoder`, `masked_predictor`, `ac_predictor`, `attentive_classifier` or
            `anticipation_head`.
        state_dict: Published names, with `module.` and `backbone.` or without. Copied.
        config: The arguments of the published class: embed_dim, depth, num_heads; where they apply
            img_size, patch_size, tubelet_size, mlp_ratio, predictor_embed_dim, num_mask_tokens,
            use_extrinsics, action_embed_dim, num_classes, or the numbers of verbs, nouns and
            actions. Four of ours: `rope`, `v2` by default, `interleaved` for weights with the
            corrected embedding, `sincos` (or use_rope false) for V-JEPA 1; `trained_grid`, the
            tokens along time, rows and columns of V-JEPA 1's table, (8, 14, 14) for 16 frames of
            224 pixels; `v2_1`, whether an encoder is
            V-JEPA 2.1's, with modality vectors and inner norms (no weights of it were seen here);
            `use_states`, false for jepa-wms' retrained predictor.

    Returns:
        The module, in eval mode, float32. Call them by `encoder(video, token_ids=None)`,
        `masked_predictor(context, context_ids, target_ids, mask_index)`,
        `ac_predictor(latents, actions, states, extrinsics=None)`, `classifier(tokens)`,
        `head(tokens)`.

    Raises:
        ValueError: When `kind` is unknown or the configuration lacks a key.
        CheckpointError: Naming the missing, unexpected and wrong-shaped keys.
    """
    names = _cleaned(list(state_dict), "the state dict")
    tensors = {clean: state_dict[name].detach().clone() for clean, name in names.items()}
    return _built(kind, tensors, config, "the state dict")


def load(path: str | Path, kind: str, part: str | None = None, **config: Any) -> nn.Module:
    """Read one module from a file, with no more memory than its weights need.

    Args:
        path: A file, folder or name as for `read_weights`.
        kind: As for `load_published`.
        part: Which part of the file; by default the first of `ENCODER_PARTS` it has, or the
            predictor or the only classifier.
        config: Overrides what is inferred from the shapes and from config.json: num_heads (64
            channels each by default, 80 in ViT-H, 32 in the masked predictor, 16 heads in a
            classifier), img_size (256), rope, use_extrinsics. A whole file of V-JEPA 1 is known by
            its predictor; for an encoder alone give rope="sincos" and trained_grid.

    Returns:
        As `load_published`.

    Raises:
        As `read_weights` and `load_published`.
    """
    weights = open_weights(locate(path))
    tensors, part = _read(weights, part or _default_part(weights, kind))
    config = {"rope": DEFAULT_ROPE.get(part, "v2")} | _vjepa1(weights) | config
    config = infer(kind, tensors, weights.path, config)
    return _built(kind, tensors, config, f"`{part}` of {path}")


def read_weights(path: str | Path, part: str) -> dict[str, Tensor]:
    """Read one part of a file of weights.

    Args:
        path: A `.pt` or `.safetensors` file, a folder of Hugging Face or of ours, or a name as
            `sources.locate` takes them, such as `vjepa2-vitl` or `hf:OWNER/NAME`.
        part: `encoder`, `target_encoder`, `ema_encoder`, `predictor`, `classifier` (the only one)
            or `classifiers.N`.

    Returns:
        Published names to tensors in memory of their own; nothing else of the file is read.

    Raises:
        FileNotFoundError: When the file or one of its shards is missing.
        CheckpointError: When the file cannot be read or has no such part.
    """
    return read_part(open_weights(locate(path)), part)


def read_part(weights: Weights, part: str) -> dict[str, Tensor]:
    """Do as `read_weights` with a file that is open already."""
    return _read(weights, part)[0]


def _vjepa1(weights: Weights) -> dict[str, Any]:
    """Return what a file of V-JEPA 1 says of its positions; nothing for all others.

    Its predictor has a table of positions, and a mask token for each of two kinds of mask; V-JEPA 2
    has ten, and the table only as a leftover.
    """
    names = {} if hf_keys.is_hugging_face(set(weights.sizes)) else _clean(list(weights.sizes))
    tokens = {name for name in names if name.startswith("predictor.mask_tokens.")}
    table = names.get("predictor.predictor_pos_embed")
    width = names.get("predictor.predictor_norm.weight")
    if len(tokens) != 2 or table is None or width is None:
        return {}
    grid = trained_grid(weights.sizes[table] // weights.sizes[width], weights.path)
    return {"rope": "sincos", "trained_grid": grid, "img_size": grid[1] * PATCH}


def is_jepa_wms(weights: Weights) -> bool:
    """Say whether the predictor in a file is of jepa-wms.

    Its state encoder has another name, or is missing like that of the extrinsics, which the
    original always has.
    """
    names = parts_of(weights).get("predictor", {})
    original = any(f"{layer}_encoder.weight" in names for layer in ("state", "extrinsics"))
    return "proprio_encoder.weight" in names or not original


def parts_of(weights: Weights) -> dict[str, dict[str, str]]:
    """Return the parts a file has: part to published name to name in the file."""
    names = list(weights.sizes)
    if hf_keys.is_hugging_face(set(names)):
        parts = {part: hf_keys.theirs_of(part, set(names)) for part in hf_keys.PARTS}
        return {part: {name: name for name in held} for part, held in parts.items() if held}
    parts = {}
    for clean, name in _cleaned(names, weights.path).items():
        part, _, rest = clean.partition(".")
        if part == "classifiers":
            number, _, rest = rest.partition(".")
            part = f"classifiers.{number}"
        elif part not in _SINGLE:
            continue
        if rest not in _UNUSED:
            parts.setdefault(part, {})[rest] = name
    if not parts:
        clean = _cleaned(names, weights.path)
        bare = next((part for name, part in _FINGERPRINTS.items() if name in clean), None)
        parts = {bare: clean} if bare else {}
    return parts


def _read(weights: Weights, part: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a part by published name, and the part's full name."""
    parts = parts_of(weights)
    probes = [name for name in parts if name.startswith("classifier")]
    if part == "classifier" and len(probes) == 1:
        part = probes[0]
    if part not in parts:
        held = ", ".join(parts) or f"none, but names such as {', '.join([*weights.sizes][:10])}"
        advice = "name one of the classifiers" if probes and part == "classifier" else "name one"
        raise CheckpointError(f"{weights.path} has no part `{part}`; it has {held}: {advice}")
    names = parts[part]
    copied = weights.copy(names.values())
    if hf_keys.is_hugging_face(set(weights.sizes)):
        return hf_keys.from_hugging_face(part, copied), part
    return {_renamed(clean): copied.pop(name) for clean, name in names.items()}, part


def _default_part(weights: Weights, kind: str) -> str:
    if kind == "encoder":
        parts = parts_of(weights)
        return next((part for part in ENCODER_PARTS if part in parts), "encoder")
    return "classifier" if kind in _PROBES else "predictor"


def _cleaned(names: list[str], where: Any) -> dict[str, str]:
    """Return clean name to name: without wrappers, without the unused position tables."""
    clean = _clean(names)
    if len(clean) < len(names):
        twice = sorted(set(names) - set(clean.values()))
        raise CheckpointError(
            f"{len(twice)} names of {where} are the same as others but for `module.` or "
            f"`backbone.`: {', '.join(twice[:10])}; keep one of each"
        )
    return {name: original for name, original in clean.items() if name not in _UNUSED}


def _clean(names: list[str]) -> dict[str, str]:
    """Return name without wrappers to name."""
    return {".".join(x for x in name.split(".") if x not in _WRAPPERS): name for name in names}


def _renamed(name: str) -> str:
    """Undo jepa-wms' renaming of V-JEPA 2-AC's state encoder."""
    if name.startswith("proprio_encoder."):
        return name.replace("proprio_encoder.", "state_encoder.", 1)
    return name


def _built(kind: str, tensors: dict[str, Tensor], config: dict[str, Any], where: str) -> nn.Module:
    if kind not in MODULES:
        hint = did_you_mean(kind, MODULES)
        raise ValueError(f"`kind` must be one of {tuple(MODULES)}, got {kind!r}.{hint}")
    try:
        with torch.device("meta"):
            module = _module(kind, config)
    except KeyError as error:
        raise ValueError(
            f"the configuration of a published {kind} needs {error}, got the keys {sorted(config)}"
        ) from None
    fill(module, tensors, where)
    return module.eval()


def _module(kind: str, config: dict[str, Any]) -> nn.Module:
    """Build a module from the arguments of the published class; KeyError if one is missing."""
    rope = "v2" if config.get("use_rope", True) else "sincos"
    arguments: dict[str, Any] = {"rope": rope} | config
    if kind.endswith("predictor"):  # a published predictor's `embed_dim` is that of the encoder
        patch, size = config.get("patch_size", PATCH), config["img_size"]
        rows, columns = (size, size) if isinstance(size, int) else size
        arguments |= {
            "grid": (rows // patch, columns // patch),
            "latent_dim": config["embed_dim"],
            "embed_dim": config["predictor_embed_dim"],
            "action_dim": config.get("action_embed_dim", 7),
        }
    module = VideoTransformer21 if config.get("v2_1", False) else MODULES[kind]
    taken = inspect.signature(module).parameters.values()
    return module(
        **{
            item.name: arguments[item.name]
            for item in taken
            if item.name in arguments or item.default is inspect.Parameter.empty
        }
    )


MODULES: dict[str, type[nn.Module]] = {
    "encoder": VideoTransformer,
    "masked_predictor": MaskedPredictor,
    "ac_predictor": ActionConditionedPredictor,
    "attentive_classifier": AttentiveClassifier,
    "anticipation_head": AnticipationHead,
}
