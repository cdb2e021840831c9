"""Every episode of a dataset, decoded once into one memory-mapped array.

`frames-<hash>.npy` holds the frames and `numbers-<hash>.npz` ids and states. Both are derived from
the episodes: what is missing or damaged is made again, and both may be deleted at any time.
"""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from jepa_gym.files import atomic_write
from jepa_gym.preprocess import droid_crop
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, read_episode
from jepa_gym.training.data.workers import work

EPISODES_PER_PROCESS = 64
"""Fewer are decoded before another process has started."""


@dataclass(frozen=True)
class Cache:
    """The decoded episodes of a dataset."""

    frames: np.ndarray
    """(E, T, Y, X, 3) uint8, memory-mapped, cameras side by side."""
    states: np.ndarray
    """(E, T, 7) float64."""
    ids: list[str]
    """Episode ids, E of them."""


def open_cache(
    folder: Path,
    name: str,
    episodes: list[Path],
    cameras: tuple[str, ...],
    image_size: int,
    skip_corrupt: bool,
) -> Cache:
    """Open the cache of a dataset, after decoding the episodes where that was not done yet.

    Args:
        folder: Where the cache is.
        name: Part of the file names, a hash of the episodes' content.
        episodes: The episodes' folders.
        cameras: Views that are put side by side.
        image_size: Height and width of a view; what was recorded otherwise is cropped and resized
            as published (`jepa_gym.preprocess.droid_crop`).
        skip_corrupt: Leave corrupt episodes out with a warning.

    Raises:
        CorruptEpisodeError: If an episode is corrupt and `skip_corrupt` is off.
        ValueError: If episodes differ in length or size.
        OSError: If the disk is full, before anything was decoded.
    """
    frames_path, numbers_path = folder / f"frames-{name}.npy", folder / f"numbers-{name}.npz"
    read = partial(_read_tiled, cameras=cameras, image_size=image_size)
    if not (frames_path.is_file() and numbers_path.is_file()):
        _build(frames_path, numbers_path, episodes, read, skip_corrupt)
    try:
        cache, skipped = _read(frames_path, numbers_path)
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        print(f"{folder}: the cache is damaged ({error}); decoding again", file=sys.stderr)
        _build(frames_path, numbers_path, episodes, read, skip_corrupt)
        cache, skipped = _read(frames_path, numbers_path)
    if skipped and not skip_corrupt:
        raise CorruptEpisodeError(
            episodes[0].parent / skipped[0],
            "found when the cache was built; pass --skip-corrupt to leave it out",
        )
    return cache


def _read(frames_path: Path, numbers_path: Path) -> tuple[Cache, list[str]]:
    """Return the cache and the ids of the episodes that were left out."""
    frames = np.load(frames_path, mmap_mode="r")
    with numbers_path.open("rb") as file, np.load(file) as numbers:
        states, ids = numbers["states"], [str(name) for name in numbers["ids"]]
        skipped = [str(name) for name in numbers["skipped"]]
    if frames.ndim != 5 or frames.dtype != np.uint8 or len(frames) != len(ids) + len(skipped):
        raise ValueError(f"{frames_path.name} has the shape {frames.shape}")
    if states.shape != (len(ids), frames.shape[1], 7):
        raise ValueError(f"{numbers_path.name} holds states of shape {states.shape}")
    return Cache(frames, states, ids), skipped


def _build(
    frames_path: Path,
    numbers_path: Path,
    episodes: list[Path],
    read: Callable[[Path], tuple[str, np.ndarray, np.ndarray] | CorruptEpisodeError],
    skip_corrupt: bool,
) -> None:
    found: dict[str, np.ndarray] = {}
    skipped: list[str] = []
    frames: np.memmap | None = None
    with atomic_write(frames_path) as frames_file, atomic_write(numbers_path) as numbers_file:
        processes = min(os.cpu_count() or 1, 1 + len(episodes) // EPISODES_PER_PROCESS)
        decoded = work(read, episodes, processes)
        for item in tqdm(decoded, "decoding episodes", len(episodes), unit="episode"):
            if isinstance(item, CorruptEpisodeError):
                if not skip_corrupt:
                    raise item
                warnings.warn(f"skipped: {item}", stacklevel=5)
                skipped.append(item.folder.name)
                continue
            name, picture, states = item
            if frames is None:
                frames = allocate(frames_file, (len(episodes), *picture.shape))
            if picture.shape != frames.shape[1:]:
                raise ValueError(
                    f"episode {name} has frames of shape {picture.shape}, another one "
                    f"{frames.shape[1:]}; all episodes of a dataset must agree"
                )
            frames[len(found)] = picture
            found[name] = states
        if frames is None:
            raise ValueError(f"{episodes[0].parent}: every episode is corrupt")
        frames.flush()
        np.savez(
            numbers_file,
            states=np.stack(list(found.values())),
            ids=np.array(list(found)),
            skipped=np.array(sorted(skipped), dtype="U64"),
        )


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
        print(f"{path} is damaged; encoding again", file=sys.stderr)
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


def tile(episode: Episode, cameras: tuple[str, ...], image_size: int) -> np.ndarray:
    """Put the views of an episode side by side, (T, Y, X * cameras, 3) uint8."""
    views = []
    for camera in cameras:
        view = episode.frames[camera]
        if view.shape[1:3] != (image_size, image_size):
            resized = droid_crop(torch.from_numpy(view[None]), image_size)
            view = resized[0].round().to(torch.uint8).numpy()
        views.append(view)
    return np.concatenate(views, axis=2)


def _read_tiled(
    folder: Path, cameras: tuple[str, ...], image_size: int
) -> tuple[str, np.ndarray, np.ndarray] | CorruptEpisodeError:
    """Read one episode in a worker; a corrupt one comes back as the error itself."""
    try:
        episode = read_episode(folder, cameras)
    except CorruptEpisodeError as error:
        return error
    return folder.name, tile(episode, cameras, image_size), episode.states
