"""The frames of a dataset's windows: decoded once into one memory-mapped array, or when asked for.

`frames-<hash>.npy` holds the frames and `numbers-<hash>.npz` the windows
(`jepa_gym.training.data.windows`), `windows-<hash>.npz` the latter alone, where frames are decoded
on the fly. All are derived from the episodes: what is missing or damaged is made again, and all may
be deleted at any time.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from jepa_gym.files import atomic_write
from jepa_gym.logs import progress_bar
from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.indexed import Episodes, decode_job
from jepa_gym.training.data.views import Reading
from jepa_gym.training.data.windows import EPISODES_PER_PROCESS, Windows, cut_all
from jepa_gym.training.data.workers import work

_LOG = logging.getLogger(__name__)

WAYS = ("auto", "cache", "on-the-fly")
"""How frames are decoded: `auto` takes the cache where it is or fits on the disk."""
SPARE = 1.1
"""Free space on the disk over the size of a cache, below which nothing is cached."""
Loaded = TypeVar("Loaded")


class DecodedFrames:
    """Frames that are decoded whenever they are asked for, indexed as the cache's array is."""

    dtype = np.dtype(np.uint8)

    def __init__(self, episodes: Episodes, windows: Windows) -> None:
        """Prepare decoding.

        Args:
            episodes: Where they are.
            windows: The rows (W, T) of the frames.
        """
        self.episodes, self.jobs = episodes, episodes.jobs(windows)
        self.shape = (*windows.rows.shape, *episodes.reading.frame_shape())
        """(W, T, Y, X, 3)."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | tuple[int | slice, slice]) -> np.ndarray:
        """Decode a window, or some of its frames; or those of a slice of windows.

        Raises:
            CorruptEpisodeError: If a video is damaged.
        """
        windows, frames = index if isinstance(index, tuple) else (index, slice(None))
        if isinstance(windows, slice):
            chosen = range(*windows.indices(len(self)))
            return np.stack([self[window, frames] for window in chosen])
        number, name, sample, rows = self.jobs[windows]
        episodes = self.episodes
        return episodes.reading.pictures(episodes.sources[number], name, sample, rows[frames])


def open_frames(
    folder: Path, key: str, episodes: Episodes, skip_corrupt: bool, way: str = "auto"
) -> tuple[np.ndarray | DecodedFrames, Windows]:
    """Open the frames and windows of a dataset, made where that was not done yet.

    Args:
        folder: Where the cache is.
        key: Part of the file names, a hash of the episodes' content and of how they are read.
        episodes: The episodes.
        skip_corrupt: Leave corrupt episodes out with a warning.
        way: One of `WAYS`.

    Returns:
        Frames (W, T, Y, X, 3) uint8, memory-mapped or decoded when asked for; and the W windows,
        of which those that are not `sound` must not be used.

    Raises:
        CorruptEpisodeError: If an episode is corrupt and `skip_corrupt` is off.
        ValueError: If episodes differ in length, or none holds a window.
        OSError: If the disk is full, before anything was decoded.
    """
    frames_path, numbers_path = folder / f"frames-{key}.npy", folder / f"numbers-{key}.npz"

    def windows() -> Windows:
        path = folder / f"windows-{key}.npz"
        return _made(partial(Windows.load, path), partial(_cut, path, episodes, skip_corrupt))

    def build() -> None:
        _build(frames_path, numbers_path, episodes, windows(), skip_corrupt)

    if way == "on-the-fly":
        return _decoded(episodes, windows(), skip_corrupt)
    if way == "auto" and not (frames_path.is_file() and numbers_path.is_file()):
        found = windows()
        if not _fits(folder, found, episodes.reading):
            return _decoded(episodes, found, skip_corrupt)
    frames, found = _made(partial(_read, frames_path, numbers_path), build)
    _check_skipped(found, episodes, skip_corrupt)
    return frames, found


def _decoded(
    episodes: Episodes, windows: Windows, skip_corrupt: bool
) -> tuple[DecodedFrames, Windows]:
    _check_skipped(windows, episodes, skip_corrupt)
    return DecodedFrames(episodes, windows), windows


def _made(load: Callable[[], Loaded], make: Callable[[], object]) -> Loaded:
    """Load a derived file, which is made again if it is missing or damaged."""
    try:
        return load()
    except FileNotFoundError:
        pass
    except (ValueError, OSError, EOFError) as error:
        _LOG.warning(f"the cache is damaged ({error}); making it again")
    make()
    return load()


def _check_skipped(windows: Windows, episodes: Episodes, skip_corrupt: bool) -> None:
    """Name the corrupt episodes that were left out, or refuse.

    Raises:
        CorruptEpisodeError: If some were, and `skip_corrupt` is off.
    """
    if not len(windows.skipped):
        return
    if not skip_corrupt:
        raise CorruptEpisodeError(
            episodes.sources[0].path,
            f"{windows.skipped[0]}, found when the cache was built; pass --skip-corrupt to leave "
            "it out",
        )
    for reason in windows.skipped:
        warnings.warn(f"left out: {reason}", stacklevel=2)


def _fits(folder: Path, windows: Windows, reading: Reading) -> bool:
    """Say whether the frames of windows fit on the disk."""
    needed = windows.rows.size * int(np.prod(reading.frame_shape()))
    free = shutil.disk_usage(folder).free
    if needed * SPARE < free:
        return True
    _LOG.warning(
        f"{folder}: {needed / 1e9:.3g} GB of decoded frames do not fit into {free / 1e9:.3g} GB of "
        "free space; frames are decoded on the fly"
    )
    return False


def _cut(path: Path, episodes: Episodes, skip_corrupt: bool) -> None:
    with atomic_write(path) as temporary:
        windows = cut_all(episodes.sources, episodes.reading, episodes.entries, skip_corrupt)
        windows.save(temporary)


def _read(frames_path: Path, numbers_path: Path) -> tuple[np.ndarray, Windows]:
    """Return frames, and the windows with the episodes left out that could not be decoded."""
    frames, windows = np.load(frames_path, mmap_mode="r"), Windows.load(numbers_path)
    if frames.ndim != 5 or frames.dtype != np.uint8 or frames.shape[:2] != windows.rows.shape:
        raise ValueError(f"{frames_path.name} has the shape {frames.shape}")
    return frames, windows


def _build(
    frames_path: Path,
    numbers_path: Path,
    episodes: Episodes,
    windows: Windows,
    skip_corrupt: bool,
) -> None:
    reading = episodes.reading
    with atomic_write(frames_path) as frames_file, atomic_write(numbers_path) as numbers_file:
        frames = allocate(frames_file, (*windows.rows.shape, *reading.frame_shape()))
        jobs, sound = episodes.jobs(windows), windows.sound.copy()
        bad: dict[str, None] = dict.fromkeys(windows.skipped.tolist())
        processes = min(os.cpu_count() or 1, 1 + len(jobs) // EPISODES_PER_PROCESS)
        decoded = work(partial(decode_job, episodes.sources, reading), jobs, processes)
        for number, item in enumerate(progress_bar(decoded, "decoding", len(jobs), unit="window")):
            if isinstance(item, CorruptEpisodeError):
                if not skip_corrupt:
                    raise item
                bad[str(item)] = None
                sound[(windows.ids == jobs[number][1]) & (windows.source == jobs[number][0])] = (
                    False
                )
            else:
                frames[number] = item
        if not sound.any():
            raise ValueError(f"{episodes.sources[0].path}: every episode is corrupt")
        frames.flush()
        replace(windows, sound=sound, skipped=np.array(list(bad), np.str_)).save(numbers_file)


def cached_array(
    path: Path, shape: tuple[int, ...], dtype: type, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """Open an array file, after making it where there is none or a damaged one.

    Args:
        path: The file; it appears complete or not at all.
        shape: Of the array.
        dtype: Of the array.
        fill: Writes every entry of the array that it is given.

    Returns:
        The array, memory-mapped, read-only.

    Raises:
        OSError: If the disk is full, or what was written cannot be read again.
    """
    for _ in range(2):
        if not path.is_file():
            with atomic_write(path) as temporary:
                made = allocate(temporary, shape, dtype)
                fill(made)
                made.flush()
        with suppress(ValueError, EOFError):
            array = np.load(path, mmap_mode="r")
            if array.shape == shape and array.dtype == dtype:
                return array
        _LOG.warning(f"{path} is damaged; encoding again")
        path.unlink()
    raise OSError(f"{path} was damaged as soon as it was written: check the disk")


def allocate(path: Path, shape: tuple[int, ...], dtype: type = np.uint8) -> np.memmap:
    """Make an array file whose every byte has its place on the disk.

    A sparse file would be written until the disk is full, and then the process is killed by a bus
    error.

    Args:
        path: The file.
        shape: Of the array.
        dtype: Of the array.

    Raises:
        OSError: If the disk is full.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path.parent)) from error
    return array
