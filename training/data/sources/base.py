"""What every format of recorded data is read through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True)
class Recording:
    """The numbers of one episode of T frames; what was not recorded is None or empty."""

    times_s: np.ndarray
    """(T,) float64, physical time of each frame, growing; of a still, one number."""
    states: np.ndarray | None = None
    """(T, 7) float64: metres, radians (extrinsic xyz), closedness."""
    actions: np.ndarray | None = None
    """(T - 1, 7) float64, as commanded."""
    rewards: np.ndarray | None = None
    """(T - 1,) float64, the reward after each action."""
    success: np.ndarray | None = None
    """(T - 1,) bool, success after each action."""
    extrinsics: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Camera -> (T, 6): position in metres and extrinsic-xyz angles in the robot's base frame, with
    OpenCV's axes."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON-compatible labels: `object`, `kind`, `instruction`, ..."""


class Source(ABC):
    """Recorded episodes in one format, read where they lie.

    An episode is named by an id that is the same on every machine and survives adding episodes,
    because the split goes by it. Objects can be pickled and used by several threads at once, so
    that workers can decode: they keep no open file, or one for each thread.

    A module that defines one imports optional packages only when a source of it is made.
    """

    format: ClassVar[str]
    """Its name in `jepa_gym.training.data.sources.FORMATS`."""
    path: Path
    """The file or folder that it reads."""
    cameras: tuple[str, ...]
    """The views that may be asked for; an episode may lack one."""
    state_convention: str | None
    """What the states are the pose of, one of `jepa_gym.config.STATE_CONVENTIONS`; None where there
    are no states."""

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether a file or folder looks like this format, at a glance.

        Args:
            path: A file or folder that exists.
        """

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Open a file or folder; nothing is decoded.

        Args:
            path: A file or folder that exists.

        Raises:
            ValueError: If it is not of this format, or damaged as a whole.
        """

    @abstractmethod
    def ids(self) -> list[str]:
        """Return the ids of all episodes, sorted."""

    @abstractmethod
    def files(self, episode_id: str) -> list[Path]:
        """Return the files below `path` that an episode is read from, for the content hash."""

    @abstractmethod
    def recording(self, episode_id: str) -> Recording:
        """Read the numbers of an episode, without decoding its pictures.

        Raises:
            CorruptEpisodeError: If something is missing, lengths differ, or numbers are not finite
                or not in the units of the contract (`jepa_gym.states.unit_problem`).
        """

    @abstractmethod
    def frame_count(self, episode_id: str, camera: str) -> int:
        """Count the frames of a camera, as far as that is known without decoding them.

        Raises:
            CorruptEpisodeError: If the camera was not recorded, or its file is damaged.
        """

    @abstractmethod
    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Decode some frames of an episode, at the size they were recorded in.

        Args:
            episode_id: The episode.
            camera: One of `cameras`.
            rows: Indices of the recording's frames, not decreasing.

        Returns:
            (rows, Y, X, 3) uint8.

        Raises:
            CorruptEpisodeError: If they cannot be decoded.
        """
