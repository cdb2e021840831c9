"""The episodes that the index of a dataset lists, and the sources they are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.files import parse_json
from jepa_gym.training.data import content
from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources import Source, open_source
from jepa_gym.training.data.views import Reading
from jepa_gym.training.data.windows import Entry, Windows, cut_episode

EPISODES_NAME = "episodes.json"
"""Beside an index of other people's data: which episodes are used, and why others are not."""
Job = tuple[int, str, int, np.ndarray]
"""Number of the source, episode's id, number of the sample, and rows of a window."""


@dataclass(frozen=True)
class Episodes:
    """The episodes of a dataset and how they are read."""

    sources: tuple[Source, ...]
    entries: tuple[Entry, ...]
    reading: Reading

    @classmethod
    def of(cls, folder: Path, index: Mapping[str, Any]) -> Episodes:
        """Open the sources of an index and list their episodes.

        Args:
            folder: The dataset's folder.
            index: The content of its `dataset.json`.

        Raises:
            FileNotFoundError: If a source or a list is missing, or there is no episode.
            ValueError: If they are damaged.
        """
        reading = Reading.of(index)
        if "sources" not in index:
            if not (folder / "episodes").is_dir():
                raise FileNotFoundError(f"{folder / 'episodes'} holds no episode")
            source = open_source(folder, "jepa-gym")
            entries = tuple((0, name) for name in source.ids())
            if not entries:
                raise FileNotFoundError(f"{folder / 'episodes'} holds no episode")
            return cls((source,), entries, reading)
        path = folder / EPISODES_NAME
        try:
            described = [(folder / one["path"], str(one["format"])) for one in index["sources"]]
            kept = parse_json(path.read_text())["kept"]
            entries = tuple((number, str(name)) for number, x in enumerate(kept) for name in x)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"the index in {folder} or {EPISODES_NAME} is damaged ({error}): give the command "
                "of `jepa-gym make-index` again"
            ) from error
        if not entries or len(kept) != len(described):
            raise ValueError(f"{path} must list episodes of each of the {len(described)} sources")
        return cls(tuple(open_source(*one) for one in described), entries, reading)

    def hashes(self, folder: Path, known: content.Files) -> content.Files:
        """Hash all files that the episodes are read from, and the list of them.

        Args:
            folder: The dataset's folder.
            known: What was found earlier.
        """
        found: content.Files = {}
        for number, source in enumerate(self.sources):
            ids = [name for which, name in self.entries if which == number]
            paths = {path for name in ids for path in source.files(name)}
            found |= content.hash_files(source.path, paths, known, self._prefix(number))
        if (folder / EPISODES_NAME).is_file():
            found |= content.hash_files(folder, [folder / EPISODES_NAME], known)
        return found

    def file_name(self, number: int, path: Path) -> str:
        """Return the name that a file of a source has in `hashes`."""
        return self._prefix(number) + content.name_below(self.sources[number].path, path)

    def _prefix(self, number: int) -> str:
        return f"{number}/" if len(self.sources) > 1 else ""

    def is_corrupt(self, entry: Entry) -> bool:
        """Say whether an episode cannot be read, after decoding all of it."""
        cut = cut_episode(self.sources, self.reading, entry)
        if isinstance(cut, CorruptEpisodeError):
            return True
        every = np.arange(len(cut.recording.times_s))
        samples = range(len(self.reading.samples))
        decoded = (
            decode_job(self.sources, self.reading, (*entry, sample, every)) for sample in samples
        )
        return any(isinstance(item, CorruptEpisodeError) for item in decoded)

    def jobs(self, windows: Windows) -> list[Job]:
        """Return what is to be decoded for each window."""
        columns = (windows.source.tolist(), windows.ids.tolist(), windows.sample.tolist())
        return list(zip(*columns, windows.rows, strict=True))


def decode_job(
    sources: Sequence[Source], reading: Reading, job: Job
) -> np.ndarray | CorruptEpisodeError:
    """Decode a window, (T, Y, X, 3) uint8; a corrupt episode comes back as the error itself."""
    number, name, sample, rows = job
    try:
        return reading.pictures(sources[number], name, sample, rows)
    except CorruptEpisodeError as error:
        return error
