"""Formats of recorded data. To add one: a module with a `Source`, and its line in `FORMATS`."""

from __future__ import annotations

from pathlib import Path

from jepa_gym.names import resolve
from jepa_gym.training.data.sources.base import Recording, Source

__all__ = ["FORMATS", "Recording", "Source", "open_source"]

FORMATS = {
    "jepa-gym": f"{__name__}.own:OwnSource",
    "lerobot": f"{__name__}.lerobot:LeRobotSource",
    "robomimic": f"{__name__}.robomimic:RobomimicSource",
    "droid": f"{__name__}.droid:DroidSource",
    "videos": f"{__name__}.videos:VideoSource",
    "pictures": f"{__name__}.pictures:PictureSource",
}
"""Format -> where its `Source` lives; the first that recognises a folder reads it."""


def open_source(path: str | Path, format: str | None = None) -> Source:
    """Open recorded data of any known format.

    Args:
        path: A file or folder.
        format: One of `FORMATS`; None recognises it.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If no format, or not the one asked for, recognises it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for name in FORMATS if format is None else (format,):
        source = resolve(FORMATS, "format", name)
        if source.recognises(path):
            return source(path)
    known = ", ".join(FORMATS)
    raise ValueError(
        f"{path} holds no recorded data {f'of the format {format}' if format else 'that is known'};"
        f" the formats are {known}"
    )
