"""How well the hand's position can be read from frozen features, the figure of pre-training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.world_model import WorldModel


def probe_hand(
    model: WorldModel, train_arrays: ClipArrays, held_out: ClipArrays, frames: int = 400
) -> float:
    """Fit ridge regression from frozen latents to the hand's position.

    Args:
        model: Gives the latents.
        train_arrays: Where the probe is fitted.
        held_out: Where it is measured.
        frames: Frames of each split.

    Returns:
        Mean distance on held-out frames, cm.
    """
    (x, y), (x_test, y_test) = (
        _probe_data(model, arrays, frames) for arrays in (train_arrays, held_out)
    )
    mean, offset = x.mean(0), y.mean(0)
    x, x_test = x - mean, x_test - mean
    kernel = x @ x.T  # fewer frames than features: solve the dual problem
    ridge = 1e-2 * kernel.diagonal().mean() * torch.eye(len(x))
    weights = torch.linalg.solve(kernel + ridge, y - offset)
    predicted = x_test @ x.T @ weights + offset
    return 100 * (predicted - y_test).norm(dim=1).mean().item()


def _probe_data(model: WorldModel, arrays: ClipArrays, count: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    episodes = rng.integers(len(arrays.rows), size=count)
    times = rng.integers(arrays.states.shape[1], size=count)
    clips = np.stack([arrays.clip(e, t, t + 1) for e, t in zip(episodes, times, strict=True)])
    features = model.encode(clips).flatten(1).cpu()
    return features, torch.from_numpy(arrays.states[episodes, times, :3])
