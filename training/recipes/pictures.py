"""What is watched of a model in training: collapse monitors, and pictures for TensorBoard."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor

from jepa_gym.models import FrameDecoder
from jepa_gym.training.data.clips import Batch
from jepa_gym.training.engine.monitors import Watched
from jepa_gym.world_model import WorldModel

WATCHED_CLIPS = 32
EDGES = torch.tensor([0.01, 0.99])
"""Quantiles that get the darkest and the brightest colour."""


def watch(model: WorldModel, clips: Batch) -> Watched:
    """Encode clips and predict their frames, for the collapse monitors."""
    latents = model.encode(clips.frames)
    actions, states = (x.to(latents.device) for x in (clips.actions, clips.states))
    predicted = model.predict(latents[:, :-1], actions, states[:, :-1])
    return Watched(latents.flatten(0, 1), latents[:, 1:], predicted)


@torch.no_grad()
def predicted_clip(model: WorldModel, clips: Batch, decoder: FrameDecoder | None) -> np.ndarray:
    """Draw the first of some clips and how the model imagines it from its first frame.

    Args:
        model: In evaluation mode.
        clips: B clips; all of them decide the colours of latents.
        decoder: Draws latents; without one they are drawn as `principal_colours`.

    Returns:
        (3 * Y, T * X, 3) uint8. Rows: the frames, their latents, the imagined latents.
    """
    latents = model.encode(clips.frames)
    actions, states = (x[:1].to(latents.device) for x in (clips.actions, clips.states))
    ahead = model.rollout(latents[:1, :1], states[:, :1], actions[:, None])[:, 0]
    drawn = torch.cat([latents[:1], latents[:1, :1], ahead], 1)[0]  # (2 * T, N, D)
    if decoder is None:
        pictures = on_grid(principal_colours(drawn, latents), model.config.grid, clips.frames)
    else:
        pictures = (255 * decoder(drawn)).round().to(torch.uint8).cpu()
    rows = torch.cat([clips.frames[0], pictures])
    return rearrange(rows, "(rows t) y x c -> (rows y) (t x) c", rows=3).numpy()


def features_clip(frames: Tensor, features: Tensor, grid: tuple[int, int, int]) -> np.ndarray:
    """Draw a clip and the features of its tokens.

    Args:
        frames: (B, T, Y, X, 3) uint8; the first is drawn.
        features: (B, tokens, D) of all of them.
        grid: Tokens along time, rows and columns.

    Returns:
        (2 * Y, tubelets * X, 3) uint8: the first frame of each tubelet, below it the features.
    """
    colours = principal_colours(features[0], features)
    pictures = on_grid(colours.unflatten(0, (grid[0], -1)), grid[1:], frames)
    rows = torch.cat([frames[0, :: frames.shape[1] // grid[0]].cpu(), pictures])
    return rearrange(rows, "(rows t) y x c -> (rows y) (t x) c", rows=2).numpy()


def principal_colours(latents: Tensor, population: Tensor) -> Tensor:
    """Give latents the colours of their first three principal components.

    Args:
        latents: (..., D).
        population: (..., D) that decides components and range: 98 % of it is within the colours.

    Returns:
        (..., 3) uint8, on the CPU.
    """
    rows = population.float().cpu().flatten(0, -2)
    mean = rows.mean(0)
    rows = rows - mean
    _, components = torch.linalg.eigh(rows.T @ rows)
    components = components[:, -3:].flip(1)  # the largest first
    components = components * components.sum(0).sign()  # else the machine chose the sign
    low, high = torch.quantile((rows @ components)[:: max(1, len(rows) // 10_000)], EDGES, dim=0)
    projected = (latents.float().cpu() - mean) @ components
    return (255 * (projected - low) / (high - low).clamp_min(1e-6)).clamp(0, 255).to(torch.uint8)


def on_grid(colours: Tensor, grid: tuple[int, int], frames: Tensor) -> Tensor:
    """Draw the tokens (T, N, 3) of frames as large as some frames (..., Y, X, 3) are."""
    rows, columns = grid
    height, width = frames.shape[-3] // rows, frames.shape[-2] // columns
    planes = colours.unflatten(1, (rows, columns))
    return repeat(planes, "t rows columns c -> t (rows y) (columns x) c", y=height, x=width)
