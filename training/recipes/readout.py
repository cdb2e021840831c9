"""The readout of a finished model: robot states from latents, by ridge regression."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from jepa_gym.models.readout import READ, StateReadout
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.world_model import WorldModel

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties to choose from."""


def fit_readout(
    model: WorldModel,
    train: ClipArrays,
    validation: ClipArrays,
    weight: float,
    frames: int = 20_000,
) -> dict[str, float]:
    """Give a model a readout, fitted to its latents as they are; its other weights stay.

    Args:
        model: The finished model, in evaluation mode.
        train: Where the readout is fitted.
        validation: Where its penalty is chosen and its figures are measured.
        weight: `readout_weight` of the model's configuration.
        frames: Random frames of the training split.

    Returns:
        Mean errors on validation episodes: `readout hand, cm` and `readout closedness`.
    """
    model.config = replace(model.config, readout_weight=weight)
    latents, targets = _frames(model, train, frames)
    held_out, truth = _frames(model, validation, frames // 10)
    std = model.normaliser.state_std[list(READ)].cpu()
    found: list[tuple[float, StateReadout, dict[str, float]]] = []
    for ridge in RIDGES:
        readout = StateReadout(*latents.shape[1:])
        readout.fit(latents, targets, ridge)
        with torch.no_grad():
            error = (readout(held_out) - truth) * std
        hand, closedness = error[:, :3].norm(dim=1).mean().item(), error[:, 3].abs().mean().item()
        figures = {"readout hand, cm": 100 * hand, "readout closedness": closedness}
        found.append((hand, readout, figures))
    _, readout, figures = min(found, key=lambda one: one[0])
    model.readout = readout.to(model.device, model.dtype).eval().requires_grad_(False)
    return figures


def _frames(model: WorldModel, arrays: ClipArrays, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents (P, N, D) of random frames and the standardised states to be read (P, 4)."""
    rng = np.random.default_rng(0)
    drawn = rng.integers((len(arrays.rows), arrays.states.shape[1]), size=(count, 2))
    drawn = drawn[np.lexsort(drawn.T[::-1])]  # in the order of the file
    latents = [
        model.encode(np.stack([arrays.clip(e, t, t + 1) for e, t in some]))[:, 0].cpu()
        for some in np.array_split(drawn, max(1, count // 256))
    ]
    states = torch.from_numpy(arrays.states[drawn[:, 0], drawn[:, 1]]).to(model.device)
    return torch.cat(latents), model.normaliser.states(states)[:, list(READ)].cpu()
