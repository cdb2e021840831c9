"""Clips: some consecutive frames of an episode with their states and actions, drawn by seed."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from jepa_gym.training.data.cache import DecodedFrames

Span = tuple[int, int, int]
"""An episode of a split, the clip's first frame and the frame after its last."""
AHEAD = 2
"""Batches per reader that are prepared before they are asked for."""


def memory_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class ClipArrays:
    """The episodes of one split, or windows of equal length that long ones were cut into.

    `frames` covers the whole dataset, the rest only this split.
    """

    frames: np.ndarray | DecodedFrames
    """(E_all, T, Y, X, 3) uint8, memory-mapped or decoded when asked for, cameras side by side; or
    the latents of these frames, (E_all, T, N, D)."""
    rows: np.ndarray
    """(E,), the rows of `frames` that belong to the split."""
    ids: tuple[str, ...]
    """Episode ids, E of them; the windows of an episode have the same."""
    states: np.ndarray
    """(E, T, 7) float32."""
    actions: np.ndarray
    """(E, T - 1, 7) float32, pose differences of the states."""
    extrinsics: np.ndarray | None = None
    """(E, T, cameras, 6) float32, the cameras' poses; None where an episode has none."""
    weights: np.ndarray | None = None
    """(E,) float64, chance of each to be drawn; None draws all alike."""
    readers: int = 0
    """Threads that prepare the next batches; with none a batch is read when it is asked for."""

    def clip(self, episode: int, start: int, stop: int) -> np.ndarray:
        """Return frames [start, stop) of an episode of this split, (stop - start, Y, X, 3)."""
        return np.asarray(self.frames[self.rows[episode], start:stop])

    def clips(self, spans: Sequence[Span]) -> np.ndarray:
        """Return clips of equal length T, (B, T, Y, X, 3).

        Where the file is not in memory they are read ahead together, each in one piece: page by
        page, as they are touched, takes nine times as long (measured).
        """
        whole = self.frames.base if isinstance(self.frames, np.memmap) else None
        pages: list[tuple[int, int]] = []
        if isinstance(whole, mmap.mmap):
            for first, stop in self.file_ranges(spans):
                page = first // mmap.PAGESIZE * mmap.PAGESIZE
                pages.append((page, stop - page))
                whole.madvise(mmap.MADV_WILLNEED, *pages[-1])
        clips = np.stack([self.clip(*span) for span in spans])
        if isinstance(whole, mmap.mmap) and len(whole) > memory_bytes():
            for part in pages:  # else all that was ever read counts as memory of this process
                whole.madvise(mmap.MADV_DONTNEED, *part)
        return clips

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
        self._bounds = None if arrays.weights is None else np.cumsum(arrays.weights)
        self._pool = ThreadPoolExecutor(arrays.readers) if arrays.readers else None
        self._lock = Lock()
        self._waiting: dict[tuple[int, str], Future[Batch]] = {}

    def batch(self, number: int, rows: slice = slice(None)) -> Batch:
        """Draw batch `number`: clips with uniform start, of episodes by their weights.

        Args:
            number: Any non-negative integer.
            rows: Only these of its clips, for one of several processes.

        Raises:
            CorruptEpisodeError: If a clip that is decoded on the fly is damaged.
        """
        if self._pool is None:
            return self._read(number, rows)
        wanted, part = range(number, number + 1 + AHEAD * self.arrays.readers), str(rows)
        with self._lock:  # recipes draw in one thread and evaluate in another
            for key in [x for x in self._waiting if x[1] == part and x[0] not in wanted]:
                self._waiting.pop(key).cancel()
            for ahead in wanted:
                if (ahead, part) not in self._waiting:
                    self._waiting[ahead, part] = self._pool.submit(self._read, ahead, rows)
            asked = self._waiting.pop((number, part))
        return asked.result()

    def spans(self, number: int, rows: slice = slice(None)) -> list[Span]:
        """Return where the clips of a batch are; see `batch`."""
        rng = np.random.default_rng((self.seed, number))
        count, length = self.arrays.states.shape[:2]
        if self._bounds is None:
            episodes = rng.integers(count, size=self.batch_size)
        else:
            drawn = self._bounds[-1] * rng.random(self.batch_size)
            episodes = np.searchsorted(self._bounds, drawn, side="right").clip(0, count - 1)
        starts = rng.integers(length - self.frames + 1, size=self.batch_size)
        places = zip(episodes.tolist(), starts.tolist(), strict=True)
        return [(e, s, s + self.frames) for e, s in places][rows]

    def goals(self, number: int, rows: slice = slice(None)) -> torch.Tensor:
        """Return hindsight goals of a batch's clips, (B, Y, X, 3) uint8.

        Each is a frame of the same episode, uniformly drawn from the clip's last one to the
        episode's.
        """
        length = self.arrays.states.shape[1]
        rng = np.random.default_rng((self.seed, number, 1))
        shares = rng.random(self.batch_size)[rows]
        spans = []
        for (episode, _, stop), share in zip(self.spans(number, rows), shares, strict=True):
            goal = stop - 1 + int(share * (length - stop + 1))
            spans.append((episode, goal, goal + 1))
        return torch.from_numpy(self.arrays.clips(spans)[:, 0])

    def extrinsics(self, number: int, rows: slice = slice(None)) -> torch.Tensor:
        """Return the poses of the cameras in the clips of a batch, (B, T, cameras, 6) float32.

        Raises:
            ValueError: If they were not recorded.
        """
        poses = self.arrays.extrinsics
        if poses is None:
            raise ValueError("the data do not tell the cameras' poses (extrinsics)")
        return torch.from_numpy(np.stack([poses[e, s:t] for e, s, t in self.spans(number, rows)]))

    def _read(self, number: int, rows: slice) -> Batch:
        arrays, spans = self.arrays, self.spans(number, rows)
        return Batch(
            frames=torch.from_numpy(arrays.clips(spans)),
            states=torch.from_numpy(np.stack([arrays.states[e, s:t] for e, s, t in spans])),
            actions=torch.from_numpy(np.stack([arrays.actions[e, s : t - 1] for e, s, t in spans])),
        )
