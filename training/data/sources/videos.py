"""A video, or a folder of videos at any depth, for masked pre-training. There are no states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.sources.pictures import LOOKED_AT, files_below
from jepa_gym.training.data.videos import frame_times, read_frames

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


class VideoSource(Source):
    """The videos below a folder; an id is the path from there."""

    format = "videos"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cameras: tuple[str, ...] = ("video",)
        self.state_convention: str | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether this is a video, or one is among the first folders that are visited."""
        if path.is_file():
            return path.suffix.lower() in SUFFIXES
        return next(files_below(path, SUFFIXES, LOOKED_AT), None) is not None

    def ids(self) -> list[str]:
        """Return the paths of the videos below the folder."""
        return [self.path.name] if self.path.is_file() else sorted(files_below(self.path, SUFFIXES))

    def files(self, episode_id: str) -> list[Path]:
        """Return the video's file."""
        return [self.path if self.path.is_file() else self.path / episode_id]

    def recording(self, episode_id: str) -> Recording:
        """Read when the frames were taken, from the file's own clock."""
        return Recording(self._seconds(episode_id))

    def frame_count(self, episode_id: str, camera: str) -> int:
        """Count the frames by their packets; see `Source.frame_count`."""
        return len(self._seconds(episode_id))

    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Decode some frames; see `Source.frames`."""
        path = self.files(episode_id)[0]
        try:
            return read_frames(path, rows)
        except (FFmpegError, ValueError, IndexError, OSError) as error:
            raise CorruptEpisodeError(path, f"cannot be decoded ({error})") from error

    def _seconds(self, episode_id: str) -> np.ndarray:
        path = self.files(episode_id)[0]
        try:
            return frame_times(path)
        except (FFmpegError, ValueError, IndexError, OSError) as error:
            raise CorruptEpisodeError(path, f"cannot be read ({error})") from error
