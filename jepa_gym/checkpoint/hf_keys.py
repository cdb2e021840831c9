"""Names of V-JEPA 2's tensors in Hugging Face's transformers and in the published code.

transformers keeps queries, keys and values apart where the published code has one matrix, and
stacks the mask tokens. Everything else is renamed only, so both directions are exact.

Reference: `VJEPA2Model` and `VJEPA2ForVideoClassification` in `transformers/models/vjepa2`.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

PREFIX = "vjepa2."
"""Before the names of encoder and predictor in a classifier's file."""
MASK_TOKENS = "predictor.embeddings.mask_tokens"
_OURS_MASK_TOKEN = "mask_tokens."

# (ours, theirs) of each part: beginnings of names, after which both are the same.
_RENAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "encoder": (
        ("patch_embed.", "encoder.embeddings.patch_embeddings."),
        ("blocks.", "encoder.layer."),
        ("norm.", "encoder.layernorm."),
    ),
    "predictor": (
        ("predictor_embed.", "predictor.embeddings.predictor_embeddings."),
        ("predictor_blocks.", "predictor.layer."),
        ("predictor_norm.", "predictor.layernorm."),
        ("predictor_proj.", "predictor.proj."),
    ),
    "classifier": (
        ("pooler.query_tokens", "pooler.query_tokens"),
        ("pooler.cross_attention_block.", "pooler.cross_attention_layer."),
        ("pooler.blocks.", "pooler.self_attention_layers."),
        ("linear.", "classifier."),
    ),
}
# Within a block: (ours, theirs), where theirs may be several that are stacked by rows.
_SPLIT: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "block": (
        (".attn.qkv.", tuple(f".attention.{name}." for name in ("query", "key", "value"))),
        (".attn.proj.", (".attention.proj.",)),
    ),
    "pooler": (
        (".attn.qkv.", tuple(f".self_attn.{name}_proj." for name in "qkv")),
        (".attn.proj.", (".self_attn.out_proj.",)),
        (".xattn.q.", (".cross_attn.q_proj.",)),
        (".xattn.kv.", tuple(f".cross_attn.{name}_proj." for name in "kv")),
        (".norm1.", (".layer_norm1.",)),
        (".norm2.", (".layer_norm2.",)),
    ),
}
PARTS = tuple(_RENAMED)


def is_hugging_face(names: set[str]) -> bool:
    """Say whether names are those of transformers."""
    known = tuple(theirs for _, theirs in _RENAMED["encoder"] + _RENAMED["classifier"][1:3])
    return any(name.removeprefix(PREFIX).startswith(known) for name in names)


def to_hugging_face(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split.

    Args:
        part: `encoder`, `predictor` (the masked one) or `classifier`.
        tensors: Its state dict, published names.

    Returns:
        Views of the same tensors under the names of transformers, without `PREFIX`; the mask
        tokens are stacked to (n, 1, 1, width).
    """
    renamed: dict[str, Tensor] = {}
    tokens = {int(n.rpartition(".")[2]): x for n, x in tensors.items() if _is_mask_token(n)}
    if tokens:
        renamed[MASK_TOKENS] = torch.stack([tokens[number] for number in sorted(tokens)])
    for name, tensor in tensors.items():
        if not _is_mask_token(name):
            theirs = _their_names(part, name)
            renamed |= zip(theirs, tensor.chunk(len(theirs)), strict=True)
    return renamed


def theirs_of(part: str, names: set[str]) -> list[str]:
    """Return those of transformers' names, with `PREFIX` or without, that belong to a part."""
    starts = ("pooler.", "classifier.") if part == "classifier" else (f"{part}.",)
    return [name for name in names if name.removeprefix(PREFIX).startswith(starts)]


def from_hugging_face(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and fuse: the inverse of `to_hugging_face`.

    Args:
        part: As for `to_hugging_face`.
        tensors: By transformers' names, with `PREFIX` or without; emptied on the way, so that
            no more than one matrix is held twice. A name that is unknown is kept as it is.

    Returns:
        Published names. Where one of queries, keys and values is missing, the others keep their
        names, for the error that follows to name them.
    """
    tensors_by_name = {name.removeprefix(PREFIX): name for name in tensors}
    fused: dict[str, Tensor] = {}
    for name in list(tensors_by_name):
        if name not in tensors_by_name:
            continue  # fused already
        ours = _our_name(part, name)
        group = [name] if name == MASK_TOKENS else _their_names(part, ours)
        if not all(member in tensors_by_name for member in group):
            ours, group = name, [name]
        taken = [tensors.pop(tensors_by_name.pop(member)) for member in group]
        if name == MASK_TOKENS:
            fused |= {f"{_OURS_MASK_TOKEN}{i}": x.clone() for i, x in enumerate(taken[0])}
        else:
            fused[ours] = torch.cat(taken) if len(taken) > 1 else taken[0]
    return fused


def _is_mask_token(name: str) -> bool:
    return re.fullmatch(rf"{re.escape(_OURS_MASK_TOKEN)}\d+", name) is not None


def _tables(part: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return _SPLIT["pooler" if part == "classifier" else "block"]


def _their_names(part: str, name: str) -> list[str]:
    """Return the names whose tensors, stacked, are the one of our `name`."""
    theirs = name
    for our_start, their_start in _RENAMED[part]:
        if name.startswith(our_start):
            theirs = their_start + name.removeprefix(our_start)
            break
    for our_middle, their_middles in _tables(part):
        if our_middle in theirs:
            return [theirs.replace(our_middle, middle) for middle in their_middles]
    return [theirs]


def _our_name(part: str, name: str) -> str:
    """Return our name of the tensor that transformers' `name` is, or is a third or half of."""
    ours = name
    for our_start, their_start in _RENAMED[part]:
        if name.startswith(their_start):
            ours = our_start + name.removeprefix(their_start)
            break
    for our_middle, their_middles in _tables(part):
        found = next((middle for middle in their_middles if middle in ours), None)
        if found:
            return ours.replace(found, our_middle)
    return ours
