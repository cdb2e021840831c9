"""What recorded data holds, and whether it was read right: `jepa-gym inspect SOURCE`."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from tyro.conf import Positional

from jepa_gym.commands import FAILED, run_command
from jepa_gym.config import STATE_CONVENTIONS
from jepa_gym.files import atomic_write
from jepa_gym.logs import progress_bar
from jepa_gym.names import check_choice
from jepa_gym.training.data.dataset import SPLITS, split_of
from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources import FORMATS, Recording, Source, open_source
from jepa_gym.training.data.units import suspicion, time_suspicion

_LOG = logging.getLogger(__name__)

SHEET_EPISODES, SHEET_FRAMES = 4, 6
"""Rows of pictures for each camera, and columns."""
TILE, TITLE = 128, 24
"""Side of a picture and height of what is written above it, pixels."""
PLOTTED = {0: "red", 1: "green", 2: "blue", 6: "black"}
"""Columns of states -> colours."""
NAMES = ("x (m)", "y (m)", "z (m)", "roll (rad)", "pitch (rad)", "yaw (rad)", "closedness")


@dataclass(frozen=True, slots=True)
class InspectConfig:
    """Say what recorded data holds, check units and times, and draw what was read."""

    data: Positional[Path]
    """A file or folder of any known format."""
    output: Path | None = None
    """A PNG file with pictures of some episodes."""
    format: str | None = None
    """droid, jepa-gym, lerobot, ...; recognised by default."""
    episodes: int = 100
    """How many episodes are read, evenly spread over all."""
    state_convention: str | None = None
    """hand or droid: what the states are the pose of, where the format does not tell."""

    def __post_init__(self) -> None:
        """Check ranges and names."""
        if self.episodes < 1:
            raise ValueError(f"`episodes` must be at least 1, got {self.episodes}")
        if self.output is not None and self.output.suffix != ".png":
            raise ValueError(f"`output` must end in .png, got {self.output}")
        check_choice("format", self.format, (None, *FORMATS))
        check_choice("state_convention", self.state_convention, (None, *STATE_CONVENTIONS))


@dataclass
class Findings:
    """What was found in the episodes that were read."""

    recordings: dict[str, Recording] = field(default_factory=dict)
    """Id -> numbers of the sound ones."""
    sizes: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)
    """Camera -> (height, width) in pixels -> episodes."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, or probably so."""


def look(source: Source, ids: list[str], convention: str | None) -> Findings:
    """Read episodes: their numbers, and the first and last frame of every camera.

    Args:
        source: The data.
        ids: The episodes that are read.
        convention: What the states are the pose of; None where there are none.
    """
    found = Findings(sizes={camera: Counter() for camera in source.cameras})
    lacking: dict[str, list[str]] = {camera: [] for camera in source.cameras}
    for name in progress_bar(ids, "reading episodes", unit="episode", leave=False):
        try:
            recording = source.recording(name)
        except CorruptEpisodeError as error:
            found.problems.append(str(error))
            continue
        found.recordings[name] = recording
        for camera in source.cameras:
            try:
                found.sizes[camera][_size(source, name, camera, len(recording.times_s))] += 1
            except CorruptEpisodeError as error:
                lacking[camera].append(str(error))
    for camera, errors in lacking.items():
        if found.sizes[camera]:  # what none of them has was not meant to be there
            found.problems += errors
    if found.recordings and not any(found.sizes.values()):
        found.problems += [errors[0] for errors in lacking.values()]
    states = [x.states for x in found.recordings.values() if x.states is not None]
    doubts = [time_suspicion(x.times_s) for x in found.recordings.values()]
    if states and convention:
        doubts.append(suspicion(np.concatenate(states), convention))
    found.problems += dict.fromkeys(doubt for doubt in doubts if doubt)
    return found


def _size(source: Source, name: str, camera: str, steps: int) -> tuple[int, int]:
    """Return height and width of a view, after decoding its first and its last frame.

    Raises:
        CorruptEpisodeError: If it is missing or damaged, or has another number of frames.
    """
    count = source.frame_count(name, camera)
    if count != steps:
        reason = f"{camera} has {count} frames, the recording {steps} times"
        raise CorruptEpisodeError(source.path / name, reason)
    height, width = source.frames(name, camera, [0, steps - 1]).shape[1:3]
    return height, width


def describe(source: Source, ids: list[str], found: Findings, convention: str | None) -> str:
    """Put findings into words.

    Args:
        source: The data.
        ids: All episodes.
        found: What was found in some of them.
        convention: What the states are the pose of.
    """
    sound = list(found.recordings.values())
    lines = [f"{source.path}: format {source.format}, {len(ids)} episodes, {len(sound)} were read"]
    for camera, sizes in found.sizes.items():
        named = ", ".join(f"{x} x {y} (height x width)" for x, y in sizes)
        lines.append(f"  camera {camera}: {named or 'in none of these episodes'}")
    lengths = np.array([len(recording.times_s) for recording in sound])
    if len(lengths):
        lines.append(f"  frames of an episode: {_spread(lengths)}")
    steps_s = [np.diff(recording.times_s) for recording in sound if len(recording.times_s) > 1]
    if steps_s:
        lines.append(f"  seconds between frames: {_spread(np.concatenate(steps_s))}")
    states = [recording.states for recording in sound if recording.states is not None]
    if states:
        lines.append(f"  states: the pose of the {convention}")
        columns = np.concatenate(states).T
        lines += [f"    {x:<12} {_spread(y)}" for x, y in zip(NAMES, columns, strict=True)]
    else:
        lines.append("  states: none; masked pre-training needs none, everything else does")
    split = Counter(split_of(name) for name in ids)
    lines.append("  splits: " + ", ".join(f"{split[name]} {name}" for name in SPLITS))
    lines += [f"  problem: {problem}" for problem in found.problems] or ["  no problem found"]
    return "\n".join(lines)


def _spread(numbers: np.ndarray) -> str:
    low, middle, high = np.min(numbers), np.median(numbers), np.max(numbers)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}, median {middle:.4g}"


def draw(source: Source, found: Findings, path: Path) -> None:
    """Draw frames of some episodes with their times, and their states over time, as a PNG file.

    Args:
        source: The data.
        found: What was found in it.
        path: The picture.

    Raises:
        ValueError: If no episode was sound.
    """
    names, cameras = list(found.recordings), [x for x, sizes in found.sizes.items() if sizes]
    if not names or not cameras:
        raise ValueError(f"{source.path}: no episode could be read, so there is nothing to draw")
    names = [names[i] for i in spaced(len(names), SHEET_EPISODES)]
    rows = [(name, camera) for name in names for camera in cameras]
    high = TILE + TITLE
    sheet = Image.new("RGB", (TILE * (SHEET_FRAMES + 1), high * len(rows)), "white")
    write = ImageDraw.Draw(sheet)
    for row, (name, camera) in enumerate(rows):
        recording, top = found.recordings[name], high * row
        write.text((2, top), f"{name}, {camera}", "black")
        shown = spaced(len(recording.times_s), SHEET_FRAMES)
        try:
            frames = source.frames(name, camera, shown)
        except CorruptEpisodeError:
            write.text((2, top + TITLE // 2), "not recorded", "red")
            continue
        for column, (frame, number) in enumerate(zip(frames, shown, strict=True)):
            tile = ImageOps.contain(Image.fromarray(frame), (TILE - 2, TILE - 2))
            sheet.paste(tile, (TILE * column, top + TITLE))
            seconds = f"{recording.times_s[number]:.2f} s"
            write.text((TILE * column + 2, top + TITLE // 2), seconds, "black")
        if recording.states is not None:
            _plot(write, recording.states, (TILE * SHEET_FRAMES, top + TITLE // 2))
    with atomic_write(path) as temporary:
        sheet.save(temporary, "PNG")


def _plot(write: ImageDraw.ImageDraw, states: np.ndarray, corner: tuple[int, int]) -> None:
    """Plot position and closedness over time into a tile, from -1 (bottom) to 1."""
    left, top = corner
    across = left + np.linspace(0, TILE - 4, len(states))
    middle = top + TITLE // 2 + TILE // 2
    write.line([(left, middle), (left + TILE, middle)], "lightgray")
    for place, (index, colour) in enumerate(PLOTTED.items()):
        heights = middle - (TILE // 2 - 2) * np.clip(states[:, index], -1, 1)
        write.line(list(zip(across, heights, strict=True)), colour)
        write.text((left + 12 * place, top), NAMES[index][0], colour)


def spaced(count: int, most: int) -> list[int]:
    """Return at most `most` numbers below `count`, evenly spread, the ends among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, most))})


def _run(config: InspectConfig) -> int:
    source = open_source(config.data, config.format)
    ids = source.ids()
    if not ids:
        raise ValueError(f"{config.data} holds no episode")
    convention = config.state_convention or source.state_convention
    found = look(source, [ids[i] for i in spaced(len(ids), config.episodes)], convention)
    print(describe(source, ids, found, convention))
    if config.output is not None:
        draw(source, found, config.output)
        _LOG.info(f"pictures: {config.output}")
    return FAILED if found.problems else 0


def main() -> int:
    """Run the command line."""
    return run_command(_run, InspectConfig)


if __name__ == "__main__":
    raise SystemExit(main())
