"""Tokens of clips, encoded once and kept beside the data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_gym.logs import progress_bar
from jepa_gym.training.data.cache import cached_array
from jepa_gym.training.recipes.probe_examples import Examples
from jepa_gym.training.recipes.probe_models import Probed

AT_ONCE = 16
"""Clips encoded at a time."""


@torch.no_grad()
def encoded(
    model: Probed, frames: np.ndarray, ahead: int | None, device: torch.device, bf16: bool
) -> Tensor:
    """Encode clips.

    Args:
        model: Frozen.
        frames: (B, T, Y, X, 3) uint8.
        ahead: As for the model.
        device: Where the model is.
        bf16: Whether it may compute in bfloat16.

    Returns:
        (B, N, D) tokens on the device.
    """
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return model(torch.from_numpy(frames).to(device), ahead)


def cached_tokens(
    model: Probed,
    examples: Examples,
    ahead: int | None,
    folder: Path,
    key: str,
    device: torch.device,
    bf16: bool,
) -> np.ndarray:
    """Encode the clips of a split, or read what was encoded before.

    Args:
        model: Frozen.
        examples: The clips.
        ahead: As for the model.
        folder: Of the cache.
        key: Tells data and model.
        device: Where the model is.
        bf16: Whether it may compute in bfloat16.

    Returns:
        (n, N, D) float16, memory-mapped.

    Raises:
        OSError: If the disk is full, or what was written cannot be read again.
    """
    first = encoded(model, examples.frames([0]), ahead, device, bf16)
    shape = (len(examples), *first.shape[1:])
    content = "\n".join([key, str(ahead), str(bf16), *examples.names])
    path = folder / f"tokens-{hashlib.sha256(content.encode()).hexdigest()[:16]}.npy"

    def encode(tokens: np.ndarray) -> None:
        for start in progress_bar(range(0, len(examples), AT_ONCE), "encoding clips", unit="batch"):
            numbers = range(start, min(start + AT_ONCE, len(examples)))
            part = encoded(model, examples.frames(numbers), ahead, device, bf16)
            tokens[start : numbers.stop] = part.cpu().half().numpy()

    return cached_array(path, shape, np.float16, encode)
