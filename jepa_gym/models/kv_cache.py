"""The key-value cache of many candidates: a past that they share, and what each has seen alone.

The shared keys and values are stored once, whatever the number of candidates: attention runs over
the shared and over the candidate's own part, and the two results are merged by their log-sum-exp.
That is exact: a softmax over both parts weighs them by their sums of exponentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jepa_gym.models.rope import Rotation, part
from jepa_gym.models.transformer import Block, attention

KeyValues = tuple[Tensor, Tensor]
"""Keys and values, each (rows, tokens, heads, head_dim)."""

_WITH_SUMS: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""The attention behind PyTorch's own on the CPU, which also returns the log-sum-exp."""


class GrowingKeyValues:
    """Keys and values to which frames are added, the earlier ones staying where they are."""

    def __init__(self, new: KeyValues, following: int | None) -> None:
        """Begin with one frame.

        Args:
            new: Its keys and values.
            following: How many frames of the usual size will be added; None keeps `new` itself.
        """
        tokens = new[0].shape[1]
        self._buffers, self._length, self._filled = new, tokens, [tokens]
        if following and not torch.is_grad_enabled():
            keys, values = (_with_room(x, following) for x in new)
            self._buffers = keys, values

    @property
    def pair(self) -> KeyValues:
        """The keys and values so far."""
        keys, values = self._buffers
        return keys[:, : self._length], values[:, : self._length]

    def add(self, new: KeyValues) -> GrowingKeyValues:
        """Return the keys and values with those of one more frame; `self` stays valid."""
        grown, end = object.__new__(GrowingKeyValues), self._length + new[0].shape[1]
        grown._length = end
        free = self._filled[0] == self._length and end <= self._buffers[0].shape[1]
        if free and not torch.is_grad_enabled():
            for buffer, x in zip(self._buffers, new, strict=True):
                buffer[:, self._length : end] = x
            self._filled[0] = end
            grown._buffers, grown._filled = self._buffers, self._filled
        else:
            grown._buffers = _joined(self.pair, new)
            grown._filled = [end]
        return grown


def _joined(first: KeyValues, second: KeyValues) -> KeyValues:
    """Return keys and values one after the other."""
    return torch.cat([first[0], second[0]], 1), torch.cat([first[1], second[1]], 1)


def _with_room(x: Tensor, tokens: int) -> Tensor:
    buffer = x.new_empty(x.shape[0], x.shape[1] + tokens, *x.shape[2:])
    buffer[:, : x.shape[1]] = x
    return buffer


@dataclass(frozen=True)
class BlockCache:
    """What the newest frame's tokens attend to in one block, besides themselves."""

    shared: KeyValues | None
    """Of B groups of candidates; None before the first frame."""
    own: GrowingKeyValues | None = None
    """Of the B * S candidates; None before the first decoded frame."""

    def rows(self, rows: slice) -> BlockCache:
        """Return what some of the groups share; only before the first decoded frame."""
        if self.shared is None:
            return self
        keys, values = self.shared
        return BlockCache((keys[rows], values[rows]))


@dataclass(frozen=True)
class KVCache:
    """Keys and values of past frames.

    Attributes:
        frames: Number of frames held.
        blocks: What each block's newest tokens see: the frames that all candidates have in common,
            stored once, and each candidate's own.
    """

    frames: int
    blocks: tuple[BlockCache, ...]

    def rows(self, rows: slice) -> KVCache:
        """Return the cache of some batch rows; only before the first decoded frame."""
        return KVCache(self.frames, tuple(seen.rows(rows) for seen in self.blocks))


def splits(x: Tensor) -> bool:
    """Say whether attention to a shared part needs no copy of it: on the CPU, without gradients."""
    return _WITH_SUMS is not None and x.is_cpu and not torch.is_grad_enabled()


def attend(queries: Tensor, shared: KeyValues | None, own: KeyValues) -> Tensor:
    """Attend to a shared and an own part, and join the heads.

    Args:
        queries: (B * S, tokens, heads, head_dim).
        shared: Of B groups of candidates.
        own: Of B * S candidates.

    Returns:
        (B * S, tokens, heads * head_dim).
    """
    if not splits(queries):
        if shared is not None:
            samples = len(queries) // len(shared[0])
            keys, values = (x.repeat_interleave(samples, 0) for x in shared)
            own = _joined((keys, values), own)
        queries, keys, values = (x.transpose(1, 2) for x in (queries, *own))
        return attention(queries, keys, values)
    out, log_sum = _part(queries, own)
    if shared is not None:
        other, other_sum = _part(queries, shared)
        out = torch.lerp(out, other, torch.sigmoid(other_sum - log_sum)[..., None])
    return out.flatten(2).to(queries.dtype)


def _part(queries: Tensor, pair: KeyValues) -> tuple[Tensor, Tensor]:
    """Attend to one part, whose rows serve equally many rows of the queries each.

    Returns:
        (rows, tokens, heads, head_dim) and the log-sum-exp (rows, tokens, heads), float32.
    """
    grouped = queries.reshape(len(pair[0]), -1, *queries.shape[2:])
    out, log_sum = _WITH_SUMS(*(x.float().transpose(1, 2) for x in (grouped, *pair)))
    shape = queries.shape
    return out.transpose(1, 2).reshape(shape), log_sum.transpose(1, 2).reshape(shape[:3])


def decode_block(
    block: Block, x: Tensor, rope: Rotation, seen: BlockCache, following: int | None, skip: int = 0
) -> tuple[Tensor, BlockCache]:
    """Run one block over the newest frame of every candidate.

    Args:
        block: The block.
        x: (B * S, tokens, embed_dim).
        rope: Rotation of the tokens' positions.
        seen: What came before.
        following: Tokens that will be added later, when known.
        skip: Tokens at the front whose output nobody needs.

    Returns:
        The output (B * S, tokens - skip, embed_dim), and what the next frame sees.
    """
    queries, keys, values = block.attn.tokens(block.norm1(x), rope)
    new = keys, values
    own = GrowingKeyValues(new, following) if seen.own is None else seen.own.add(new)
    attended = attend(queries[:, skip:], seen.shared, own.pair)
    x = x[:, skip:] + block.attn.proj(attended)
    return x + block.mlp(block.norm2(x)), BlockCache(seen.shared, own)


def decode_first_block(
    block: Block,
    action: Tensor,
    common: Tensor,
    rope: Rotation,
    shared: KeyValues | None,
    following: int | None,
) -> tuple[Tensor, BlockCache]:
    """Run the first block over a frame of which the candidates share all but the action's token.

    Everything but one key and one value is the same for all candidates, so it is computed once and
    each candidate's own action is merged into it. Needs `splits`.

    Args:
        block: The first block.
        action: (B, S, embed_dim), the action tokens, which come first in a frame.
        common: (B, tokens - 1, embed_dim), the other tokens.
        rope: Rotation of all the tokens' positions.
        shared: What all candidates saw before.
        following: As for `decode_block`.

    Returns:
        The output (B * S, tokens, embed_dim), and what the next frame sees.
    """
    samples = action.shape[1]
    q, k, v = block.attn.tokens(
        block.norm1(action), part(rope, slice(None, 1))
    )  # (B, S, heads, ..)
    q_common, *pair = block.attn.tokens(block.norm1(common), part(rope, slice(1, None)))
    common_pair = (pair[0], pair[1]) if shared is None else _joined(shared, (pair[0], pair[1]))
    q, k, v, q_common = (x.float() for x in (q, k, v, q_common))
    known, log_sum = _part(torch.cat([q, q_common], 1), common_pair)
    scale = q.shape[-1] ** -0.5
    weight = torch.sigmoid((q * k).sum(-1) * scale - log_sum[:, :samples])
    with torch.autocast("cpu", enabled=False):  # a logarithm in float32 is subtracted from it
        own_weight = torch.einsum("bmhd,bshd->bsmh", q_common, k) * scale
    own_weight = own_weight.sub_(log_sum[:, None, samples:]).sigmoid_()
    out = v.new_empty(*v.shape[:2], 1 + common.shape[1], *v.shape[2:])
    torch.lerp(known[:, :samples], v, weight[..., None], out=out[:, :, 0])
    torch.lerp(known[:, None, samples:], v[:, :, None], own_weight[..., None], out=out[:, :, 1:])
    x = torch.cat([action[:, :, None], common[:, None].expand(-1, samples, -1, -1)], 2)
    x = x.flatten(0, 1)
    x = x + block.attn.proj(out.flatten(0, 1).flatten(2).to(x.dtype))
    k, v = (y.to(x.dtype).flatten(0, 1)[:, None] for y in (k, v))
    return x + block.mlp(block.norm2(x)), BlockCache(
        common_pair, GrowingKeyValues((k, v), following)
    )
