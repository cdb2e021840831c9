"""How frames of recordings become the frames of a dataset: which views, cut and sized how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.names import check_choice
from jepa_gym.preprocess import droid_crop, square_crop
from jepa_gym.training.data.sources.base import Source

CROPS: dict[str, Callable[[Tensor, int], Tensor]] = {"squash": droid_crop, "square": square_crop}
"""`squash`: V-JEPA 2-AC's training, the centre with at most 1.35 : 1, squashed to a square;
`square`: the centre square."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How recordings are read."""

    samples: tuple[tuple[str, ...], ...]
    """Views that are put side by side; several of such make several samples of every episode."""
    image_size: int
    """Height and width of a view, pixels."""
    step_s: float
    """Time between two frames, seconds."""
    crop: str = "squash"
    """What is done with pictures of another size, one of `CROPS`."""
    frames: int | None = None
    """Length of a window; None takes whole episodes."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        check_choice("crop", self.crop, CROPS)
        if not self.samples or len({len(sample) for sample in self.samples}) != 1:
            raise ValueError(f"`samples` must be views, as many in each sample, got {self.samples}")
        if self.frames is not None and self.frames < 2:
            raise ValueError(f"`frames` must be at least 2, got {self.frames}")

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> Reading:
        """Return how the index of a dataset says that it is read.

        Raises:
            ValueError: If the index says what cannot be.
        """
        try:
            samples = index.get("samples", [index["cameras"]])
            return cls(
                samples=tuple(tuple(map(str, sample)) for sample in samples),
                image_size=index["image_size"],
                step_s=index["step_s"],
                crop=index.get("crop", "squash"),
                frames=index.get("window_frames"),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"the index does not say how its data are read ({error})") from error

    def key(self) -> str:
        """Return a short hash of everything here, for the names of files that depend on it."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (Y, X, 3) of a frame."""
        return self.image_size, self.image_size * len(self.samples[0]), 3

    def pictures(
        self, source: Source, episode_id: str, sample: int, rows: np.ndarray
    ) -> np.ndarray:
        """Decode frames of an episode.

        Args:
            source: Where it is.
            episode_id: The episode.
            sample: Number of the views.
            rows: (R,) rows of the recording, not decreasing.

        Returns:
            (R, Y, X * views, 3) uint8, the views side by side.

        Raises:
            CorruptEpisodeError: If they cannot be decoded.
        """
        views = []
        for camera in self.samples[sample]:
            view = source.frames(episode_id, camera, rows.tolist())
            if view.shape[1:3] != (self.image_size, self.image_size):
                resized = CROPS[self.crop](torch.from_numpy(view[None]), self.image_size)
                view = resized[0].round().to(torch.uint8).numpy()
            views.append(view)
        return np.concatenate(views, axis=2)
