"""A folder of pictures, at any depth: stills for masked pre-training. There are no states.

Each picture is an episode of one frame at the time 0; a clip of it shows the same frame all along,
as V-JEPA 2 (arXiv 2506.09985) trains on images beside videos.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources.base import Recording, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LOOKED_AT = 2000
"""Folders that are visited to recognise the format."""


class PictureSource(Source):
    """The pictures below a folder; an id is the path from there."""

    format = "pictures"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cameras: tuple[str, ...] = ("picture",)
        self.state_convention: str | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether there is a picture among the first folders that are visited."""
        return next(files_below(path, SUFFIXES, LOOKED_AT), None) is not None

    def ids(self) -> list[str]:
        """Return the paths of the pictures below the folder."""
        return sorted(files_below(self.path, SUFFIXES))

    def files(self, episode_id: str) -> list[Path]:
        """Return the picture's file."""
        return [self.path / episode_id]

    def recording(self, episode_id: str) -> Recording:
        """Return the one time of a still."""
        return Recording(np.zeros(1))

    def frame_count(self, episode_id: str, camera: str) -> int:
        """Return 1."""
        return 1

    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Decode the picture, turned upright as its EXIF tag says; see `Source.frames`."""
        path = self.path / episode_id
        try:
            with Image.open(path) as image:
                pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
            raise CorruptEpisodeError(path, f"cannot be decoded ({error})") from error
        return np.repeat(pixels[None], len(rows), axis=0)


def files_below(
    folder: Path, suffixes: tuple[str, ...], most_folders: int | None = None
) -> Iterator[str]:
    """Yield the files of some kinds below a folder; hidden ones are left out.

    Args:
        folder: A folder; nothing is found in anything else.
        suffixes: Endings of their names, in small letters.
        most_folders: How many folders are visited; None for all.

    Yields:
        Paths from the folder on.
    """
    for root, folders, files in islice(os.walk(folder), most_folders):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()
