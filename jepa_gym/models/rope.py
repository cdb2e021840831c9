"""Rotary position embedding over three axes: time, row, column.

The head vector is laid out as [time | row | column | untouched rest], each axis
2 * ((head_dim // 3) // 2) wide. Within an axis, neighbouring channels (0, 1), (2, 3), ... are
rotated as pairs. Two kinds:

* ``interleaved``: both channels of a pair share one angle, a true rotation. For new models.
* ``v2``: the angles are tiled instead (0, 1, .., 0, 1, ..), so the two channels of a pair get
  different ones. This is a slip of the published code that its weights were trained with.

Reference: V-JEPA 2 (arXiv 2506.09985), `src/models/utils/modules.py::rotate_queries_or_keys`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor | None]
"""Complex factors of z and of its conjugate, z = a pair of channels; each broadcastable to
(B, tokens, 1, 1, head_dim / 2). The second is None for a true rotation."""

_BASE = 10000.0


def rotation(positions: Tensor, head_dim: int, kind: str) -> Rotation:
    """Return the rotation of tokens at the given positions.

    Args:
        positions: (..., tokens, 3) time, row and column indices.
        head_dim: Width of one attention head.
        kind: ``interleaved`` or ``v2``.

    Returns:
        Factors of shape (..., tokens, 1, 1, head_dim / 2), complex64.

    Raises:
        ValueError: When `kind` is unknown.
    """
    if kind not in ("interleaved", "v2"):
        raise ValueError(f"`kind` must be 'interleaved' or 'v2', got {kind!r}")
    half = head_dim // 3 // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * _BASE ** (-steps / half)  # (..., tokens, 3, half)
    if kind == "v2":
        angles = torch.cat([angles, angles], dim=-1)
    else:
        angles = angles.repeat_interleave(2, dim=-1)
    angles = torch.nn.functional.pad(angles.flatten(-2), (0, head_dim - 6 * half))
    first, second = angles[..., None, None, :].unflatten(-1, (-1, 2)).unbind(-1)
    if kind == "interleaved":
        return torch.polar(torch.ones_like(first), first), None
    cosines, sines = (first.cos(), second.cos()), (first.sin(), second.sin())
    return (
        torch.complex(cosines[0] + cosines[1], sines[0] + sines[1]) / 2,
        torch.complex(cosines[0] - cosines[1], sines[1] - sines[0]) / 2,
    )


def grid_positions(frames: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the (frames * rows * columns, 3) positions of a grid, time slowest."""
    axes = [torch.arange(size, device=device) for size in (frames, *grid)]
    return torch.cartesian_prod(*axes)


@lru_cache(maxsize=64)
def grid_rotation(
    frames: int, grid: tuple[int, int], head_dim: int, kind: str, device: torch.device
) -> Rotation:
    """Return the rotation of a whole grid, built once for every size in use."""
    with torch.inference_mode(False):  # a cached table must also serve training
        return rotation(grid_positions(frames, grid, device), head_dim, kind)


@lru_cache(maxsize=64)
def frame_rotation(
    first: int,
    frames: int,
    extra: int,
    grid: tuple[int, int],
    head_dim: int,
    kind: str,
    device: torch.device,
) -> Rotation:
    """Return the rotation of frames that have `extra` conditioning tokens before the grid.

    The conditioning tokens stand at row 0 and column 0, so only their time part is rotated.
    Frames are numbered from `first`.
    """
    with torch.inference_mode(False):
        patches = grid_positions(frames, grid, device).unflatten(0, (frames, -1))
        patches[..., 0] += first
        conditions = patches[:, :1].clone()
        conditions[..., 1:] = 0
        positions = torch.cat([conditions.expand(-1, extra, -1), patches], dim=1)
        return rotation(positions.flatten(0, 1), head_dim, kind)


def select(by: Rotation, token_ids: Tensor) -> Rotation:
    """Return the rotation of the tokens with the given (B, K) indices."""
    factor, conjugate_factor = by
    if conjugate_factor is not None:
        conjugate_factor = conjugate_factor[token_ids]
    return factor[token_ids], conjugate_factor


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate queries and keys.

    Args:
        x: (B, tokens, 2, heads, head_dim) queries and keys.
        by: Result of `rotation`.
    """
    factor, conjugate_factor = by
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    rotated = pairs * factor
    if conjugate_factor is not None:
        rotated = rotated + pairs.conj() * conjugate_factor
    return torch.view_as_real(rotated).flatten(-2).to(x.dtype)
