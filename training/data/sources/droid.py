"""Raw DROID: one folder per episode, at any depth; see `jepa_gym.training.data.episodes`.

Reference: DROID (arXiv 2403.12945), the raw release.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jepa_gym.training.data.episodes import (
    DROID_CAMERAS,
    DROID_TIME,
    CorruptEpisodeError,
    decoding,
    read_episode,
    read_metadata,
    video_path,
)
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.videos import frame_times, read_frames

LOOKED_AT = 2000
"""Folders that are visited to recognise the format."""


class DroidSource(Source):
    """Episodes of DROID, as published: `<lab>/<outcome>/<date>/<time>/metadata_*.json`."""

    format = "droid"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cameras: tuple[str, ...] = DROID_CAMERAS
        self.state_convention: str | None = "droid"
        self._videos: dict[tuple[str, str], Path] = {}

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether a folder holds episodes of DROID among the first ones that are visited."""
        return path.is_dir() and next(_episodes(path, LOOKED_AT), None) is not None

    def ids(self) -> list[str]:
        """Return the paths of the episodes' folders below `path`."""
        return sorted(folder.relative_to(self.path).as_posix() for folder in _episodes(self.path))

    def files(self, episode_id: str) -> list[Path]:
        """Return metadata, trajectory and videos of an episode."""
        folder = self.folder(episode_id)
        videos = sorted((folder / "recordings" / "MP4").glob("*.mp4"))
        trajectory = folder / "trajectory.h5"
        return [
            *sorted(folder.glob("metadata_*.json")),
            *([trajectory] if trajectory.is_file() else []),
            *videos,
        ]

    def recording(self, episode_id: str) -> Recording:
        """Read metadata and trajectory; see `Source.recording`."""
        episode = read_episode(self.folder(episode_id), cameras=())
        times_s, step_s = episode.timestamps_s, episode.metadata.get("step_s")
        if times_s is None and isinstance(step_s, int | float) and step_s > 0:
            times_s = step_s * np.arange(len(episode.states))
        if times_s is None:
            raise CorruptEpisodeError(
                self.folder(episode_id),
                "nothing tells when its frames were taken: trajectory.h5 needs "
                f"`{DROID_TIME}` in milliseconds, or the metadata `step_s` in seconds",
            )
        return Recording(
            times_s=times_s,
            states=episode.states,
            actions=episode.actions,
            rewards=episode.rewards,
            success=episode.success,
            extrinsics=episode.extrinsics,
            metadata=episode.metadata,
        )

    def frame_count(self, episode_id: str, camera: str) -> int:
        """Count the frames of a video by its packets; see `Source.frame_count`."""
        path = self._video(episode_id, camera)
        with decoding(self.folder(episode_id), path):
            return len(frame_times(path))

    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Decode some frames of a video; see `Source.frames`."""
        path = self._video(episode_id, camera)
        with decoding(self.folder(episode_id), path):
            return read_frames(path, rows)

    def _video(self, episode_id: str, camera: str) -> Path:
        if (episode_id, camera) not in self._videos:
            folder = self.folder(episode_id)
            path = video_path(folder, read_metadata(folder), camera)
            self._videos[episode_id, camera] = path
        return self._videos[episode_id, camera]

    def folder(self, episode_id: str) -> Path:
        """Return an episode's folder."""
        return self.path / episode_id


def _episodes(folder: Path, most_folders: int | None = None) -> Iterator[Path]:
    """Yield the folders below one that hold an episode's metadata, visiting so many at most."""
    for number, (name, folders, files) in enumerate(os.walk(folder)):
        if number == most_folders:
            return
        folders[:] = sorted(x for x in folders if not x.startswith("."))
        if any(x.startswith("metadata_") and x.endswith(".json") for x in files):
            folders.clear()  # nothing below an episode is another one
            yield Path(name)
