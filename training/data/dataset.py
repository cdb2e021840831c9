"""An index of recorded episodes, in three splits.

::

    dataset.json       units, cameras, image size, step_s, max_move_m, versions, hash (written by
                       `jepa-gym collect`, or by `jepa-gym make-index` for data of others)
    episodes.json      which episodes of other people's data are used and why others are not
    files.json         size, time and hash of every file, see `jepa_gym.training.data.content`
    episodes/<id>/     one episode each, see `jepa_gym.training.data.episodes`
    cache/             decoded frames, see `jepa_gym.training.data.cache`

Actions for training are the pose differences of the recorded states, not the commands: what a
model predicts is then what the robot did.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.files import atomic_write, parse_json
from jepa_gym.names import check_choice, did_you_mean
from jepa_gym.poses import difference
from jepa_gym.training.data import content
from jepa_gym.training.data.cache import WAYS, DecodedFrames, open_frames
from jepa_gym.training.data.clips import ClipArrays
from jepa_gym.training.data.indexed import Episodes
from jepa_gym.training.data.windows import Windows

SPLITS = ("train", "validation", "test")
"""What training learns from; what chooses checkpoints and thresholds; what is only reported."""
TEST_SHARE = 0.025
VALIDATION_SHARE = 0.025
INDEX_NAME = "dataset.json"
REQUIRED_KEYS: dict[str, type | tuple[type, ...]] = {
    "cameras": list,
    "image_size": int,
    "step_s": (int, float),
    "max_move_m": (int, float),
    "content_hash": str,
}
WINDOW = "+w"
"""Stands between the id of a recording and the number of one of its windows."""
SLASH = "__"
"""Stands for a slash in the names of folders."""
_WINDOWS = re.compile(rf"({re.escape(WINDOW)}\d{{3,}})+$")
NAMED_FILES = 3
"""How many changed files an error names."""
BOUNDS = {"image_size": (1, 8192), "step_s": (1e-3, 1e3), "max_move_m": (1e-4, 10.0)}
"""Sizes in pixels, seconds and metres that an index may name."""


class ContentError(ValueError):
    """The files of a dataset are not those that its index was written for."""


class Dataset:
    """An opened dataset folder."""

    def __init__(
        self, folder: Path, index: dict[str, Any], skip_corrupt: bool, decode: str, readers: int
    ) -> None:
        """Use `Dataset.open`.

        Args:
            folder: The dataset's folder.
            index: The content of its `dataset.json`.
            skip_corrupt: Leave corrupt episodes out with a warning instead of raising.
            decode: How frames are decoded.
            readers: Threads that prepare batches.
        """
        self.folder = folder
        self.index = index
        self.skip_corrupt = skip_corrupt
        self.decode, self.readers = decode, readers
        self.episodes = Episodes.of(folder, index)
        self.indexed_files = content.read_files(folder)
        self.files = self.episodes.hashes(folder, self.indexed_files)
        self.content_hash = content.combined_hash(self.files)
        if self.content_hash == index["content_hash"] and self.files != self.indexed_files:
            content.write_files(folder, self.files)
        self.hash = self.content_hash
        """Of the content of all files, and of how those of others are read and mixed."""
        if "sources" in index:
            read = f"{self.episodes.reading.key()} {self.weights()}"
            self.hash = hashlib.sha256(f"{self.content_hash} {read}".encode()).hexdigest()
        self.key = f"{self.content_hash[:16]}-{self.episodes.reading.key()}"
        """Part of the names of files with frames, or with what is computed from frames."""
        self._arrays: dict[str, ClipArrays] = {}
        self._opened: tuple[np.ndarray | DecodedFrames, Windows] | None = None

    @classmethod
    def open(
        cls,
        folder: str | Path,
        skip_corrupt: bool = False,
        image_size: int | None = None,
        decode: str = "auto",
        readers: int | None = None,
    ) -> Dataset:
        """Open a dataset folder.

        Args:
            folder: Folder with `dataset.json`.
            skip_corrupt: Leave corrupt episodes out with a warning instead of raising. Files that
                were changed without being corrupt are refused all the same.
            image_size: Height and width in pixels that a view shall have, where it is not what the
                index says: a patch of 14 pixels, for instance, does not divide 128.
            decode: `cache` decodes every frame once and keeps it on the disk, `on-the-fly` decodes
                a clip whenever it is drawn; `auto` takes the cache where it fits on the disk.
            readers: Threads that prepare the next batches; None takes one for each processor where
                frames are decoded on the fly (torchrun's processes share them), else none.

        Returns:
            The dataset; frames are decoded on the first `load_arrays` or later.

        Raises:
            FileNotFoundError: If there is no `dataset.json` or no episode.
            ValueError: If `dataset.json` is damaged, or a value is not allowed.
        """
        folder = Path(folder)
        index = read_index(folder)
        if image_size is not None:
            if image_size < 1:
                raise ValueError(f"`image_size` must be at least 1 pixel, got {image_size}")
            index["image_size"] = image_size
        check_choice("decode", decode, WAYS)
        if readers is not None and readers < 0:
            raise ValueError(f"`readers` must not be negative, got {readers}")
        return cls(folder, index, skip_corrupt, decode, -1 if readers is None else readers)

    def load_arrays(self, split: str) -> ClipArrays:
        """Load a split, once; the first call decodes the videos into the cache.

        Args:
            split: "train", "validation" or "test", see `split_of`.

        Returns:
            The arrays.

        Raises:
            ValueError: If there is no such split, or episodes differ in length or size.
            ContentError: If files were added, removed or changed since the index was written.
            CorruptEpisodeError: If an episode is corrupt and `skip_corrupt` is off.
        """
        if split not in SPLITS:
            meant = did_you_mean(split, SPLITS)
            raise ValueError(f"`split` must be one of {SPLITS}, got {split!r}.{meant}")
        if split not in self._arrays:
            self._arrays[split] = self._load(split)
        return self._arrays[split]

    def _load(self, split: str) -> ClipArrays:
        frames, windows = self._open_frames()
        splits = np.array([split_of(name) for name in windows.ids.tolist()])
        rows = np.flatnonzero(windows.sound & (splits == split))
        states = torch.from_numpy(windows.states[rows])
        extrinsics = windows.extrinsics[rows].astype(np.float32)
        readers = self.readers
        if readers < 0:
            here = int(
                os.environ.get("LOCAL_WORLD_SIZE", 1)
            )  # torchrun's processes share the cores
            decoding = isinstance(frames, DecodedFrames)
            readers = max(1, (os.cpu_count() or 1) // here) if decoding else 0
        return ClipArrays(
            frames=frames,
            rows=rows,
            ids=tuple(windows.ids[rows].tolist()),
            states=states.float().numpy(),
            actions=difference(states[:, :-1], states[:, 1:]).float().numpy(),
            extrinsics=None if np.isnan(extrinsics).any() else extrinsics,
            weights=self._weights_of(windows.source[rows]),
            readers=readers,
        )

    def _open_frames(self) -> tuple[np.ndarray | DecodedFrames, Windows]:
        """Open frames and windows, once."""
        if self._opened is None:
            self.check_content()
            self._opened = open_frames(
                self.folder / "cache", self.key, self.episodes, self.skip_corrupt, self.decode
            )
        return self._opened

    def weights(self) -> list[float]:
        """Return how often each source is drawn from, relative to the others.

        Raises:
            ValueError: If the index is damaged.
        """
        try:
            return [float(source.get("weight", 1)) for source in self.index.get("sources", [{}])]
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{self.folder / INDEX_NAME} has a bad weight ({error})") from error

    def _weights_of(self, source: np.ndarray) -> np.ndarray | None:
        """Share the weight of each source among its windows (E,); None for a single source."""
        if len(self.episodes.sources) == 1:
            return None
        counts = np.bincount(source, minlength=len(self.episodes.sources))
        shares = np.array(self.weights()) / np.maximum(counts, 1)
        return shares[source] / shares[source].sum() if len(source) else shares[source]

    def check_content(self) -> None:
        """Check that the files are those of the index.

        With `skip_corrupt`, files of corrupt episodes may differ, for these are left out.

        Raises:
            ContentError: If files were added, removed or changed.
        """
        if self.content_hash == self.index["content_hash"]:
            return
        changed = content.changed_names(self.indexed_files, self.files)
        if self.skip_corrupt and changed and self.indexed_files:
            changed = [name for name in changed if not self._in_corrupt_episode(name)]
            if not changed:
                return
        named = ", ".join(changed[:NAMED_FILES]) + (", ..." if len(changed) > NAMED_FILES else "")
        raise ContentError(
            f"{self.folder}: files were added, removed or changed since {INDEX_NAME} was written"
            f"{f' ({named})' if self.indexed_files else ''}: {self._remedy()}; or pass "
            "--skip-corrupt if they are damaged and shall be left out"
        )

    def _remedy(self) -> str:
        if "sources" in self.index:
            return "give the command of `jepa-gym make-index` again"
        return (
            "delete the episodes concerned and give the command of `jepa-gym collect` again, which "
            "records them anew"
        )

    def _in_corrupt_episode(self, name: str) -> bool:
        """Say whether a file lies in the folder of an episode that cannot be read."""
        parts = Path(name).parts
        within = {"/".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts))}
        found = [entry for entry in self.episodes.entries if entry[1] in within]
        return bool(found) and all(self.episodes.is_corrupt(entry) for entry in found)


def episode_folders(folder: Path) -> list[Path]:
    """List the episode folders of a dataset, sorted by id (half-written ones left out)."""
    root = folder / "episodes"
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def episode_files(folder: Path) -> list[Path]:
    """List all files of all episodes of a dataset."""
    return [p for episode in episode_folders(folder) for p in episode.rglob("*") if p.is_file()]


def split_of(episode_id: str) -> str:
    """Return the split that an episode belongs to, from its id alone.

    A hash of the id draws a number in [0, 1): 2.5 % of the episodes are `test`, 2.5 % are
    `validation`, all others `train`. Adding episodes never moves another one. What `jepa-gym
    convert` writes is where the recording is: `a__b+w000` is a window of `a/b`.

    Args:
        episode_id: The name of the episode's folder.

    Returns:
        "train", "validation" (chooses checkpoints and thresholds) or "test" (is only reported).
    """
    recording = _WINDOWS.sub("", episode_id).replace(SLASH, "/")
    draw = int.from_bytes(hashlib.sha256(recording.encode()).digest()[:4], "big") / 2**32
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"


def read_index(folder: Path) -> dict[str, Any]:
    """Read and check `dataset.json`.

    Args:
        folder: The dataset's folder.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} not found: not a dataset, or its collection or conversion did not finish; "
            "give the command of `jepa-gym collect` or `jepa-gym convert` again (both resume), or, "
            f"for data of others, `jepa-gym make-index {folder}`"
        )
    try:
        index = parse_json(path.read_text())
        wrong = [key for key, kind in REQUIRED_KEYS.items() if not isinstance(index[key], kind)]
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; it needs {list(REQUIRED_KEYS)}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and give the command of `jepa-gym collect` "
            "again, which writes it anew"
        ) from error
    if wrong:
        raise ValueError(f"{path} holds a value of the wrong type for {wrong}")
    wrong = [key for key, (low, high) in BOUNDS.items() if not low <= index[key] <= high]
    if wrong:
        raise ValueError(f"{path} must have {wrong} within {[BOUNDS[key] for key in wrong]}")
    return index


def write_index(folder: str | Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Write `dataset.json` with the episode count and the content hash filled in.

    Args:
        folder: The dataset's folder with its `episodes/`, or with `episodes.json`.
        fields: The rest of the index: cameras, image_size, step_s, max_move_m, units, versions; of
            data of others `sources`, `samples`, `crop` and `window_frames`, too.

    Returns:
        The index as written.
    """
    folder, index = Path(folder), dict(fields)
    known = content.read_files(folder)
    if "sources" in index:
        episodes = Episodes.of(folder, index)
        files, index["episodes"] = episodes.hashes(folder, known), len(episodes.entries)
    else:
        files = content.hash_files(folder, episode_files(folder), known)
        index["episodes"] = len(episode_folders(folder))
    index["content_hash"] = content.combined_hash(files)
    content.write_files(folder, files)
    with atomic_write(folder / INDEX_NAME) as path:
        path.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return index
