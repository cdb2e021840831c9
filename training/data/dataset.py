"""A folder of episodes, decoded once into one memory-mapped array.

::

    dataset.json       units, cameras, image size, step_s, max_move_m, versions, hash (written by
                       `collect`)
    episodes/<id>/     one episode each, see `jepa_gym.training.data.episodes`
    cache/             frames-<hash>.npy and numbers-<hash>.npz, rebuilt when missing

Actions for training are the pose differences of the recorded states, not the commands: what a
model predicts is then what the robot did.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from jepa_gym.names import did_you_mean
from jepa_gym.poses import difference
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, read_episode

SPLITS = ("train", "validation", "test")
"""What training learns from; what chooses checkpoints and thresholds; what is only reported."""
TEST_SHARE = 0.025
VALIDATION_SHARE = 0.025
INDEX_NAME = "dataset.json"
REQUIRED_KEYS = ("cameras", "image_size", "step_s", "max_move_m", "content_hash")


@dataclass(frozen=True)
class ClipArrays:
    """The episodes of one split; `frames` covers the whole dataset, the rest only this split."""

    frames: np.ndarray
    """(E_all, T, Y, X, 3) uint8, memory-mapped, cameras side by side."""
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

    def clips(self, spans: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """Return clips (episode, start, stop) of equal length T, (B, T, Y, X, 3).

        Where the file is not in memory they are read ahead together, each in one piece: page by
        page, as they are touched, takes nine times as long (measured).
        """
        whole = self.frames.base  # the memory map
        if isinstance(whole, mmap.mmap):
            _, length, *frame = self.frames.shape
            size = math.prod(frame)
            for episode, start, stop in spans:
                first = self.frames.offset + (int(self.rows[episode]) * length + int(start)) * size
                page = first // mmap.PAGESIZE * mmap.PAGESIZE
                whole.madvise(mmap.MADV_WILLNEED, page, first + int(stop - start) * size - page)
        return np.stack([self.clip(*span) for span in spans])


@dataclass(frozen=True)
class Batch:
    """B clips of T frames."""

    frames: torch.Tensor
    """(B, T, Y, X, 3) uint8."""
    states: torch.Tensor
    """(B, T, 7) float32."""
    actions: torch.Tensor
    """(B, T - 1, 7) float32."""


class Dataset:
    """An opened dataset folder."""

    def __init__(self, folder: Path, index: dict[str, Any], skip_corrupt: bool) -> None:
        """Use `Dataset.open`.

        Args:
            folder: the dataset's folder.
            index: the content of its `dataset.json`.
            skip_corrupt: leave corrupt episodes out with a warning instead of raising.
        """
        self.folder = folder
        self.index = index
        self.skip_corrupt = skip_corrupt
        self.hash = content_hash(folder)
        self._arrays: dict[str, ClipArrays] = {}

    @classmethod
    def open(cls, folder: str | Path, skip_corrupt: bool = False) -> Dataset:
        """Open a dataset folder.

        Args:
            folder: folder with `dataset.json` and `episodes/`.
            skip_corrupt: leave corrupt episodes out with a warning instead of raising.

        Returns:
            The dataset; frames are decoded on the first `load_arrays`.

        Raises:
            FileNotFoundError: no `dataset.json` or no episode.
            ValueError: `dataset.json` lacks a key.
        """
        folder = Path(folder)
        path = folder / INDEX_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} not found: not a dataset, or its collection did not finish; "
                "run `jepa-gym collect` (it resumes)"
            )
        index = json.loads(path.read_text())
        missing = [key for key in REQUIRED_KEYS if key not in index]
        if missing:
            raise ValueError(f"{path} lacks {missing}; it needs {list(REQUIRED_KEYS)}")
        if not episode_folders(folder):
            raise FileNotFoundError(f"{folder / 'episodes'} holds no episode")
        return cls(folder, index, skip_corrupt)

    def load_arrays(self, split: str) -> ClipArrays:
        """Load a split, once; the first call decodes the videos into the cache.

        Args:
            split: "train", "validation" or "test", see `split_of`.

        Returns:
            The arrays.

        Raises:
            ValueError: unknown split, episodes of different length or size, or the content does
                not match the hash in `dataset.json`.
            CorruptEpisodeError: an episode is corrupt and `skip_corrupt` is off.
        """
        if split not in SPLITS:
            meant = did_you_mean(split, SPLITS)
            raise ValueError(f"`split` must be one of {SPLITS}, got {split!r}.{meant}")
        if split not in self._arrays:
            self._arrays[split] = self._load(split)
        return self._arrays[split]

    def _load(self, split: str) -> ClipArrays:
        frames_path = self.folder / "cache" / f"frames-{self.hash[:16]}.npy"
        numbers_path = self.folder / "cache" / f"numbers-{self.hash[:16]}.npz"
        if not (frames_path.is_file() and numbers_path.is_file()):
            self._build_cache(frames_path, numbers_path)
        numbers = np.load(numbers_path)
        if len(numbers["skipped"]) and not self.skip_corrupt:
            raise CorruptEpisodeError(
                self.folder / "episodes" / str(numbers["skipped"][0]),
                "found when the cache was built; pass --skip-corrupt to leave it out",
            )
        if self.hash != self.index["content_hash"] and not self.skip_corrupt:
            raise ValueError(
                f"{self.folder}: content hash {self.hash[:16]} differs from the one in "
                f"{INDEX_NAME} ({self.index['content_hash'][:16]}): files were added, removed or "
                "changed; run the collection again (it resumes and rewrites the index) or pass "
                "--skip-corrupt"
            )
        ids = [str(name) for name in numbers["ids"]]
        rows = np.array([i for i, name in enumerate(ids) if split_of(name) == split], np.int64)
        states = torch.from_numpy(numbers["states"])[rows]
        return ClipArrays(
            frames=np.load(frames_path, mmap_mode="r"),
            rows=rows,
            ids=tuple(ids[row] for row in rows),
            states=states.float().numpy(),
            actions=difference(states[:, :-1], states[:, 1:]).float().numpy(),
        )

    def _build_cache(self, frames_path: Path, numbers_path: Path) -> None:
        folders = episode_folders(self.folder)
        cameras = tuple(self.index["cameras"])
        frames_path.parent.mkdir(exist_ok=True)
        temporary = frames_path.with_suffix(f".{os.getpid()}.tmp")
        frames, states, ids, skipped = None, [], [], []
        context = multiprocessing.get_context("spawn")
        try:
            with context.Pool(os.cpu_count()) as pool:
                episodes = pool.imap(partial(_read_tiled, cameras=cameras), folders, chunksize=8)
                for item in tqdm(episodes, "decoding episodes", len(folders), unit="episode"):
                    if isinstance(item, CorruptEpisodeError):
                        if not self.skip_corrupt:
                            raise item
                        warnings.warn(f"skipped: {item}", stacklevel=3)
                        skipped.append(item.folder.name)
                        continue
                    name, picture, state = item
                    if frames is None:
                        shape = (len(folders), *picture.shape)
                        frames = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                    if picture.shape != frames.shape[1:]:
                        raise ValueError(
                            f"episode {name} has frames of shape {picture.shape}, the ones before "
                            f"{frames.shape[1:]}; all episodes of a dataset must agree"
                        )
                    frames[len(ids)] = picture
                    states.append(state)
                    ids.append(name)
            if frames is None:
                raise ValueError(f"{self.folder}: every episode is corrupt")
            frames.flush()
            numbers_temporary = temporary.with_suffix(".npz")
            np.savez(
                numbers_temporary,
                states=np.stack(states),
                ids=np.array(ids),
                skipped=np.array(skipped, dtype="U64"),
            )
            numbers_temporary.replace(numbers_path)
            temporary.replace(frames_path)
        finally:
            temporary.unlink(missing_ok=True)


class ClipSampler:
    """Draws random clips; batch number k of a seed is always the same, so runs can resume."""

    def __init__(self, arrays: ClipArrays, frames: int, batch_size: int, seed: int) -> None:
        """Prepare sampling.

        Args:
            arrays: a split.
            frames: T, consecutive frames of a clip.
            batch_size: B.
            seed: any non-negative integer.

        Raises:
            ValueError: clips are longer than the episodes, or the split is empty.
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

    def batch(self, number: int) -> Batch:
        """Draw batch `number`: clips with uniform episode and start."""
        rng = np.random.default_rng((self.seed, number))
        arrays, length = self.arrays, self.arrays.states.shape[1]
        episodes = rng.integers(len(arrays.rows), size=self.batch_size)
        starts = rng.integers(length - self.frames + 1, size=self.batch_size)
        spans = [(e, s, s + self.frames) for e, s in zip(episodes, starts, strict=True)]
        return Batch(
            frames=torch.from_numpy(arrays.clips(spans)),
            states=torch.from_numpy(np.stack([arrays.states[e, s:t] for e, s, t in spans])),
            actions=torch.from_numpy(np.stack([arrays.actions[e, s : t - 1] for e, s, t in spans])),
        )


def episode_folders(folder: Path) -> list[Path]:
    """List the episode folders of a dataset, sorted by id (half-written ones left out)."""
    root = folder / "episodes"
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def content_hash(folder: str | Path) -> str:
    """Hash the names and bytes of all episode files, in sorted order.

    Args:
        folder: the dataset's folder.

    Returns:
        SHA-256 as hexadecimal digits.
    """
    digest = hashlib.sha256()
    for episode in episode_folders(Path(folder)):
        for path in sorted(p for p in episode.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def split_of(episode_id: str) -> str:
    """Return the split that an episode belongs to, from its id alone.

    A hash of the id draws a number in [0, 1): 2.5 % of the episodes are `test`, 2.5 % are
    `validation`, all others `train`. Adding episodes never moves another one.

    Args:
        episode_id: The name of the episode's folder.

    Returns:
        "train", "validation" (chooses checkpoints and thresholds) or "test" (is only reported).
    """
    draw = int.from_bytes(hashlib.sha256(episode_id.encode()).digest()[:4], "big") / 2**32
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"


def write_index(folder: str | Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Write `dataset.json` atomically, with the episode count and the content hash filled in.

    Args:
        folder: the dataset's folder with its `episodes/`.
        fields: the rest of the index: cameras, image_size, step_s, max_move_m, units, versions.

    Returns:
        The index as written.
    """
    folder = Path(folder)
    index = dict(fields)
    index |= {"episodes": len(episode_folders(folder)), "content_hash": content_hash(folder)}
    temporary = folder / f".{INDEX_NAME}.tmp"
    temporary.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    temporary.replace(folder / INDEX_NAME)
    return index


def tile(episode: Episode, cameras: tuple[str, ...]) -> np.ndarray:
    """Put the views of an episode side by side, (T, Y, X * cameras, 3) uint8."""
    return np.concatenate([episode.frames[camera] for camera in cameras], axis=2)


def _read_tiled(
    folder: Path, cameras: tuple[str, ...]
) -> tuple[str, np.ndarray, np.ndarray] | CorruptEpisodeError:
    """Read one episode in a worker; a corrupt one comes back as the error itself."""
    try:
        episode = read_episode(folder, cameras)
    except CorruptEpisodeError as error:
        return error
    return folder.name, tile(episode, cameras), episode.states
