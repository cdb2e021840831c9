"""Clips: some consecutive frames of an episode with their states and actions, drawn by seed."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Span = tuple[int, int, int]
"""An episode of a split, the clip's first frame and the frame after its last."""


@dataclass(frozen=True)
class ClipArrays:
    """The episodes of one split; `frames` covers the whole dataset, the rest only this split."""

    frames: np.ndarray
    """(E_all, T, Y, X, 3) uint8, memory-mapped, cameras side by side; or the latents of these
    frames, (E_all, T, N, D)."""
    rows: np.ndarray
    """(E,), the rows of `frames` that belong to the split."""
    ids: tuple[str, ...]
    """Episode ids, E of them."""
    states: np.ndarray
    """(E, T, 7) float32."""
    actions: np.ndarray
    """(E, T - 1, 7) float32, pose differences of the states."""

    def clip(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Return frames [start, stop) of an episode of this split, (stop - start, Y, X, 3)."""
        return np.asarray(self.frames[self.rows[episode], start:stop])

    def clips(self, spans: Sequence[Span]) -> np.ndarray:
        """Return clips of equal length T, (B, T, Y, X, 3).

        Where the file is not in memory they are read ahead together, each in one piece: page by
        page, as they are touched, takes nine times as long (measured).
        """
        whole = self.frames.base
        if isinstance(self.frames, np.memmap) and isinstance(whole, mmap.mmap):
            for first, stop in self.file_ranges(spans):
                page = first // mmap.PAGESIZE * mmap.PAGESIZE
                whole.madvise(mmap.MADV_WILLNEED, page, stop - page)
        return np.stack([self.clip(*span) for span in spans])

    def file_ranges(self, spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
        """Yield the bytes [first, stop) of the memory-mapped file that hold each clip."""
        assert isinstance(self.frames, np.memmap)
        _, length, *frame = self.frames.shape
        size = math.prod(frame) * self.frames.itemsize
        for episode, start, stop in spans:
            first = self.frames.offset + (int(self.rows[episode]) * length + int(start)) * size
            yield first, first + int(stop - start) * size


@dataclass(frozen=True)
class Batch:
    """B clips of T frames."""

    frames: torch.Tensor
    """(B, T, Y, X, 3) uint8."""
    states: torch.Tensor
    """(B, T, 7) float32."""
    actions: torch.Tensor
    """(B, T - 1, 7) float32."""


class ClipSampler:
    """Draws random clips; batch number k of a seed is always the same, so runs can resume."""

    def __init__(self, arrays: ClipArrays, frames: int, batch_size: int, seed: int) -> None:
        """Prepare sampling.

        Args:
            arrays: A split.
            frames: T, consecutive frames of a clip.
            batch_size: B.
            seed: Any non-negative integer.

        Raises:
            ValueError: If clips are longer than the episodes, or the split is empty.
        """
        length = arrays.states.shape[1]
        if not 1 <= frames <= length:
            raise ValueError(f"`frames` must be in [1, {length}] (episode length), got {frames}")
        if not len(arrays.rows):
            raise ValueError("the split holds no episode; collect more (20 or more in all)")
        self.arrays = arrays
        self.frames = frames
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`: clips with uniform episode and start.

        Args:
            number: Any non-negative integer.
            rows: Only these of its clips, for one of several processes.
        """
        rng = np.random.default_rng((self.seed, number))
        arrays, length = self.arrays, self.arrays.states.shape[1]
        episodes = rng.integers(len(arrays.rows), size=self.batch_size)
        starts = rng.integers(length - self.frames + 1, size=self.batch_size)
        spans = [(e, s, s + self.frames) for e, s in zip(episodes, starts, strict=True)][rows]
        return Batch(
            frames=torch.from_numpy(arrays.clips(spans)),
            states=torch.from_numpy(np.stack([arrays.states[e, s:t] for e, s, t in spans])),
            actions=torch.from_numpy(np.stack([arrays.actions[e, s : t - 1] for e, s, t in spans])),
        )
