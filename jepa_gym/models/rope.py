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
import torch.nn.functional as F
from torch import Tensor

Rotation = tuple[Tensor, Tensor | None]
"""What `rotate` applies. For ``interleaved`` the complex factors of the pairs, broadcastable to
(B, tokens, 1, 1, head_dim / 2), and None; for ``v2`` the cosines and the sines of the channels,
each broadcastable to (B, tokens, 1, 1, head_dim)."""

_BASE = 10000.0
_LARGEST_KEPT = 2**18
"""Tables with more channels than this are built anew: a large input's forward hides their cost."""
_KEPT = 32
"""Tables kept for re-use, of each sort: at most 2 MiB each."""


def rotation(positions: Tensor, head_dim: int, kind: str) -> Rotation:
    """Return the rotation of tokens at the given positions.

    Args:
        positions: (..., tokens, 3) time, row and column indices.
        head_dim: Width of one attention head.
        kind: ``interleaved`` or ``v2``.

    Returns:
        Tables in float32 or complex64, under autocast too.

    Raises:
        ValueError: When `kind` is unknown.
    """
    if kind not in ("interleaved", "v2"):
        raise ValueError(f"`kind` must be 'interleaved' or 'v2', got {kind!r}")
    half = head_dim // 3 // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * _BASE ** (-steps / half)  # (..., tokens, 3, half)
    rest = head_dim - 6 * half
    if kind == "interleaved":
        angles = F.pad(angles.flatten(-2), (0, rest // 2))[..., None, None, :]
        return torch.polar(torch.ones_like(angles), angles), None
    angles = F.pad(torch.cat([angles, angles], dim=-1).flatten(-2), (0, rest))[..., None, None, :]
    return angles.cos(), angles.sin()


def grid_positions(frames: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the (frames * rows * columns, 3) positions of a grid, time slowest."""
    axes = [torch.arange(size, device=device) for size in (frames, *grid)]
    return torch.cartesian_prod(*axes)


def grid_rotation(
    frames: int,
    grid: tuple[int, int],
    head_dim: int,
    kind: str,
    device: torch.device,
    span: int | None = None,
) -> Rotation:
    """Return the rotation of a whole grid; small ones are kept for the sizes in use.

    With `span` the rows and the columns of any grid are spread over 0 .. span - 1.
    """
    kept = frames * grid[0] * grid[1] * head_dim <= _LARGEST_KEPT
    build = _grid_rotation if kept else _grid_rotation.__wrapped__
    return build(frames, grid, head_dim, kind, device, span)


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
    Frames are numbered from `first`. Small tables are kept.
    """
    kept = frames * (extra + grid[0] * grid[1]) * head_dim <= _LARGEST_KEPT
    build = _frame_rotation if kept else _frame_rotation.__wrapped__
    return build(first, frames, extra, grid, head_dim, kind, device)


@lru_cache(maxsize=_KEPT)
def _grid_rotation(
    frames: int,
    grid: tuple[int, int],
    head_dim: int,
    kind: str,
    device: torch.device,
    span: int | None,
) -> Rotation:
    with torch.inference_mode(False):  # a kept table must also serve training
        positions = grid_positions(frames, grid, device)
        if span is not None:
            last = torch.tensor(grid, device=device) - 1
            places = positions[:, 1:].float() * (span - 1) / last
            positions = torch.cat([positions[:, :1].float(), places], dim=1)
        return rotation(positions, head_dim, kind)


@lru_cache(maxsize=_KEPT)
def _frame_rotation(
    first: int,
    frames: int,
    extra: int,
    grid: tuple[int, int],
    head_dim: int,
    kind: str,
    device: torch.device,
) -> Rotation:
    with torch.inference_mode(False):
        patches = grid_positions(frames, grid, device).unflatten(0, (frames, -1))
        patches[..., 0] += first
        conditions = patches[:, :1].clone()
        conditions[..., 1:] = 0
        positions = torch.cat([conditions.expand(-1, extra, -1), patches], dim=1)
        return rotation(positions.flatten(0, 1), head_dim, kind)


def part(by: Rotation, tokens: Tensor | slice) -> Rotation:
    """Return the rotation of some of the tokens.

    Args:
        by: The rotation of all tokens of a grid.
        tokens: A slice, or indices (B, K).
    """
    first, second = by
    return first[tokens], None if second is None else second[tokens]


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Rotate queries and keys; in place where no gradients are kept and x is float32.

    Args:
        x: (B, tokens, 2, heads, head_dim) queries and keys.
        by: Result of `rotation`.

    Returns:
        As x; on the CPU float32 where gradients are kept, for its attention is in float32 then.
    """
    first, sines = by
    full = x.float()
    pairs = torch.view_as_complex(full.unflatten(-1, (-1, 2)))
    in_place = not torch.is_grad_enabled()  # new memory costs as much as the arithmetic
    dtype = torch.float32 if x.is_cpu and not in_place else x.dtype
    if sines is None:
        rotated = pairs.mul_(first) if in_place else pairs * first
        return torch.view_as_real(rotated).flatten(-2).to(dtype)
    turned = torch.view_as_real(pairs * 1j).flatten(-2)  # (x0, x1, ..) -> (-x1, x0, ..)
    scaled = full.mul_(first) if in_place else full * first
    return (scaled.addcmul_(turned, sines) if in_place else scaled.addcmul(turned, sines)).to(dtype)
