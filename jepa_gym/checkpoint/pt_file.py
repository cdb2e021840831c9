"""PyTorch's `.pt` files: tensors only, memory-mapped, so that nothing is read before it is used."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_gym.checkpoint.errors import CheckpointError

PARTS = ("encoder", "target_encoder", "ema_encoder", "predictor", "classifiers")
"""Top-level keys of a published `.pt` that hold weights; all others are of the training."""
_SHOWN = 10


def map_pt(file: Path) -> dict[str, Tensor]:
    """Map a `.pt`: the tensors of its published parts, or of a bare state dict, by flat name.

    It is unpickled with `weights_only=True`, so no code in it runs.

    Raises:
        CheckpointError: When it is damaged, holds other objects than tensors, or no weights.
    """
    try:
        content = torch.load(file, mmap=True, weights_only=True, map_location="cpu")
        parts = {key: content[key] for key in PARTS if key in content}
        tensors = dict(_flat(parts or content, ""))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds Python objects besides tensors, and to load them could run any code: "
            f"refused ({_first_line(error)}). If you trust its source, open it where that does no "
            "harm and save only the tensors: "
            "torch.save({'encoder': ..., 'predictor': ...}, path)"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise CheckpointError(
            f"{file} ({file.stat().st_size} bytes) is truncated or damaged "
            f"({_first_line(error)}); download it again"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, not a dictionary of weights"
        )
    if not tensors:
        keys = [str(key) for key in content]
        raise CheckpointError(
            f"{file} holds no weights: of the keys {PARTS} it has none with tensors, but "
            f"{len(keys)} others: {', '.join(keys[:_SHOWN])}"
        )
    return tensors


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def _first_line(error: Exception) -> str:
    """Return what an error of PyTorch says, without its advice to switch the protection off."""
    lines = [line.strip() for line in str(error).splitlines() if "nsupported" in line]
    text = lines[0] if lines else (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text[:200]
