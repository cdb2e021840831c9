"""Write recorded data anew: `jepa-gym convert SOURCE OUTPUT`.

Any format becomes a dataset of ours: every n-th frame, cut to windows of equal length and resized
once, so that training decodes small pictures. Windows of one recording lie in one split. Run again,
an interrupted conversion goes on. `--to lerobot` writes a dataset of ours as one of LeRobot,
`--to rerun` any data as files that Rerun shows.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tyro.conf import Positional

import jepa_gym
from jepa_gym.commands import run_command
from jepa_gym.config import STATE_CONVENTIONS
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.logs import progress_bar
from jepa_gym.names import check_choice
from jepa_gym.training.data.dataset import SLASH, WINDOW, read_index, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, write_episode
from jepa_gym.training.data.inspection import spaced
from jepa_gym.training.data.lerobot_writer import write_lerobot
from jepa_gym.training.data.make_index import usual_move
from jepa_gym.training.data.rerun_writer import write_rerun
from jepa_gym.training.data.sources import FORMATS, Recording, Source, open_source
from jepa_gym.training.data.units import suspicion
from jepa_gym.training.data.views import CROPS, Reading
from jepa_gym.training.data.windows import Cut, cut_episode
from jepa_gym.training.data.workers import work

_LOG = logging.getLogger(__name__)

SETTINGS_NAME = "conversion.json"
FREE_SETTINGS = ("data", "output", "workers", "skip_corrupt", "accept_units", "max_move_m", "to")
"""What may differ when a conversion is continued: it changes no episode."""
CHECKED_EPISODES = 20
"""Episodes whose units are looked at before anything is written."""
NAMED_SKIPPED = 5


@dataclass(frozen=True, slots=True)
class ConvertConfig:
    """Write recorded data of any format as a dataset of ours, or one of ours as LeRobot's."""

    data: Positional[Path]
    """A file or folder of any known format."""
    output: Positional[Path]
    """Folder of the new dataset."""
    to: str = "jepa-gym"
    """jepa-gym, lerobot or rerun. The latter two take episodes as they are and none of the flags;
    lerobot takes a dataset of ours, rerun writes an .rrd file an episode (extra `rerun`)."""
    format: str | None = None
    """droid, lerobot, robomimic, ...; recognised by default."""
    cameras: tuple[str, ...] = ()
    """Views that are written; by default all that the first episode has."""
    image_size: int = 256
    """Height and width that a view shall have, pixels; even."""
    crop: str = "squash"
    """`squash` as V-JEPA 2-AC was trained: the centre, at most 1.35 : 1, squashed to a square; or
    `square`: the centre square."""
    step_s: float = 0.25
    """Seconds between two frames; every n-th recorded frame is taken."""
    frames: int | None = 16
    """Frames of the windows that recordings are cut into; None writes them whole."""
    max_move_m: float | None = None
    """Bound of one step's translation per axis, metres; measured by default."""
    state_convention: str | None = None
    """hand or droid: what the states are the pose of, where the format does not tell."""
    skip_corrupt: bool = False
    """Leave out what is corrupt instead of stopping, and say what it was."""
    accept_units: bool = False
    """Write what looks like wrong units or conventions, too."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is read."""
        check_choice("to", self.to, ("jepa-gym", "lerobot", "rerun"))
        check_choice("format", self.format, (None, *FORMATS))
        check_choice("crop", self.crop, CROPS)
        check_choice("state_convention", self.state_convention, (None, *STATE_CONVENTIONS))
        for name in ("image_size", "step_s", "workers", "max_move_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.image_size % 2:
            raise ValueError(f"`image_size` must be even, as H.264 asks, got {self.image_size}")
        if self.frames is not None and self.frames < 2:
            raise ValueError(f"`frames` must be at least 2, got {self.frames}")
        if self.data.resolve() == self.output.resolve():
            raise ValueError("`output` must be another folder than the data")
        given = ("to", "data", "output", "format", "workers")
        flags = [x for x in fields(self) if x.name not in given]
        changed = [x.name for x in flags if getattr(self, x.name) != x.default]
        if self.to != "jepa-gym" and changed:
            raise ValueError(f"--to {self.to} writes episodes as they are: leave out {changed}")

    def settings(self) -> dict[str, Any]:
        """Return what decides the episodes, as JSON."""
        values = {name: value for name, value in asdict(self).items() if name not in FREE_SETTINGS}
        return values | {"cameras": list(self.cameras)}


def convert(config: ConvertConfig) -> dict[str, Any]:
    """Write all missing episodes and `dataset.json`.

    Returns:
        The content of `dataset.json`.

    Raises:
        FileNotFoundError: If there is no such data.
        CorruptEpisodeError: If an episode is corrupt and `skip_corrupt` is off.
        ValueError: If the data has no states, its units look wrong, nothing is long enough, or the
            output holds something else.
    """
    source = open_source(config.data, config.format)
    ids = source.ids()
    convention = _check_states(config, source, ids)
    cameras = config.cameras or _cameras_of_first(source, ids)
    reading = Reading((cameras,), config.image_size, config.step_s, config.crop, config.frames)
    names = _folder_names(ids)
    with _alone(config.output):
        _check_settings(config, source.format, list(cameras))
        skipped: list[str] = []
        windows = short = 0
        job = partial(_convert, source, reading, config.output / "episodes")
        results = work(job, list(names.items()), min(config.workers, len(ids)))
        for result in progress_bar(results, "converting episodes", len(ids), unit="episode"):
            if isinstance(result, CorruptEpisodeError):
                if not config.skip_corrupt:
                    raise result
                skipped.append(str(result))
            else:
                windows, short = windows + result, short + (result == 0)
        if not windows:
            raise ValueError(
                f"none of the {len(ids)} episodes in {config.data} gave a window of "
                f"{config.frames} frames every {config.step_s:g} s: {short} are too short"
                + (f", {len(skipped)} corrupt ({skipped[0]})" if skipped else "")
                + ". Give fewer --frames, or another --step-s"
            )
        return write_index(
            config.output,
            {
                "cameras": list(cameras),
                "image_size": config.image_size,
                "step_s": config.step_s,
                "max_move_m": config.max_move_m or _usual_move(config.output),
                "state_convention": convention,
                "settings": config.settings() | {"source": source.format},
                "left_out": {"too short": short, "corrupt": len(skipped)},
                "skipped": skipped[:NAMED_SKIPPED],
                "versions": {"jepa_gym": jepa_gym.__version__, "numpy": np.__version__},
            },
        )


def _check_states(config: ConvertConfig, source: Source, ids: Sequence[str]) -> str:
    """Return what the states are the pose of, after a look at their units.

    Raises:
        ValueError: If there are no states, or they look wrong.
    """
    convention = config.state_convention or source.state_convention
    seen = []
    for number in spaced(len(ids), CHECKED_EPISODES):
        try:
            seen.append(source.recording(ids[number]).states)
        except CorruptEpisodeError:
            continue  # named when it is converted
    states = [x for x in seen if x is not None]
    if convention is None or (seen and not states):
        raise ValueError(
            f"{config.data} has no states that are known to be the hand's: masked pre-training "
            f"reads it where it lies (`jepa-gym make-index {config.data}`), and docs/data.md has a "
            "converter to begin with"
        )
    doubt = suspicion(np.concatenate(states), convention) if states else None
    if doubt and not config.accept_units:
        raise ValueError(f"{config.data}: {doubt}; if all is right, pass --accept-units")
    return convention


def _cameras_of_first(source: Source, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the views that the first sound episode has."""
    for name in ids:
        found = []
        for camera in source.cameras:
            try:
                if source.frame_count(name, camera):
                    found.append(camera)
            except CorruptEpisodeError:
                continue  # not recorded
        if found:
            return tuple(found)
    raise ValueError(f"{source.path}: no episode with pictures was found")


def _folder_names(ids: Sequence[str]) -> dict[str, str]:
    """Return id -> the name that its folder begins with; slashes cannot stand in one.

    Raises:
        ValueError: If two have the same.
    """
    names = {name: name.replace("/", SLASH) for name in ids}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two episodes have the same name once `/` is written as `{SLASH}`")
    return names


def _convert(
    source: Source, reading: Reading, folder: Path, item: tuple[str, str]
) -> int | CorruptEpisodeError:
    """Write the windows of an episode that are missing, and count all; errors are returned."""
    name, beginning = item
    cut = cut_episode((source,), reading, (0, name))
    if isinstance(cut, CorruptEpisodeError):
        return cut
    if cut.recording.states is None:
        return CorruptEpisodeError(source.path / name, "has no states")
    if reading.frames is None and len(cut.rows[0]) < 2:
        return 0
    for number, rows in enumerate(cut.rows):
        target = folder / (
            beginning if reading.frames is None else f"{beginning}{WINDOW}{number:03d}"
        )
        if target.exists():
            continue  # written before an interruption
        try:
            pictures = reading.pictures(source, name, 0, rows)
        except CorruptEpisodeError as error:
            return error
        views = np.split(pictures, len(reading.samples[0]), axis=2)
        frames = dict(zip(reading.samples[0], views, strict=True))
        write_episode(target, _episode(source, name, cut, rows, frames, reading.step_s))
    return len(cut.rows)


def _episode(
    source: Source,
    name: str,
    cut: Cut,
    rows: np.ndarray,
    frames: Mapping[str, np.ndarray],
    step_s: float,
) -> Episode:
    """Make the episode of a window; commands are kept where no frame between was left out."""
    recording: Recording = cut.recording
    assert recording.states is not None
    before = rows[1:] - 1
    actions = recording.actions
    if actions is not None:
        actions = actions[rows[:-1]] if (np.diff(rows) == 1).all() else None
    labels = {key: x for key, x in recording.metadata.items() if not key.endswith("_mp4_path")}
    origin = {"format": source.format, "id": name, "first_frame": int(rows[0])}
    return Episode(
        frames=dict(frames),
        states=recording.states[rows],
        extrinsics={x: poses[rows] for x, poses in recording.extrinsics.items() if x in frames},
        actions=actions,
        rewards=None if recording.rewards is None else recording.rewards[before],
        success=None if recording.success is None else recording.success[before],
        timestamps_s=recording.times_s[rows] - recording.times_s[rows[0]],
        metadata=labels | {"step_s": step_s, "converted_from": origin},
    )


def _usual_move(folder: Path) -> float:
    """Return a bound of the moves in a dataset, metres."""
    written = open_source(folder, "jepa-gym")
    states = [written.recording(name).states for name in written.ids()]
    moves = [np.abs(np.diff(x[:, :3], axis=0)).max(1) for x in states if x is not None]
    return usual_move(np.concatenate(moves))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other conversions out of a folder, and clear away what a killed one left half done."""
    (folder / "episodes").mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".convert.lock", timeout=0):
            for left_over in (folder / "episodes").glob(".*.tmp"):
                shutil.rmtree(left_over, ignore_errors=True)
            yield
    except Timeout as error:
        raise ValueError(
            f"another `jepa-gym convert` writes {folder}: wait until it ends"
        ) from error


def _check_settings(config: ConvertConfig, source: str, cameras: list[str]) -> None:
    """Write the settings of a new conversion; refuse others for one that was begun.

    Raises:
        ValueError: If the folder holds something else.
    """
    path = config.output / SETTINGS_NAME
    settings = config.settings() | {"source": source, "cameras": cameras}
    if not path.is_file():
        if next((config.output / "episodes").iterdir(), None) is not None:
            raise ValueError(f"{config.output} holds other episodes; give another folder")
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
        return
    try:
        known = dict(parse_json(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): convert into another folder") from error
    other = [f"{x}={known.get(x)!r}, not {y!r}" for x, y in settings.items() if known.get(x) != y]
    if other:
        raise ValueError(
            f"{config.output} was begun with {'; '.join(other)}: give the same settings to go on, "
            "or another folder"
        )


def _run(config: ConvertConfig) -> None:
    if config.to == "lerobot":
        source = open_source(config.data, config.format)
        if source.format != "jepa-gym":
            raise ValueError(
                f"{config.data} is of the format {source.format}: convert it to a dataset of ours "
                "first, and that with --to lerobot"
            )
        write_lerobot(source, read_index(config.data), config.output)
        _LOG.info(f"{config.output}: {len(source.ids())} episodes as LeRobot's format v3")
        return
    if config.to == "rerun":
        files = write_rerun(open_source(config.data, config.format), config.output)
        _LOG.info(f"{config.output}: {len(files)} episodes as .rrd files; open one with `rerun`")
        return
    index = convert(config)
    _LOG.info(
        f"{config.output}: {index['episodes']} episodes every {index['step_s']:g} s, moves up to "
        f"{index['max_move_m']:g} m, content hash {index['content_hash'][:16]}"
    )
    if any(index["left_out"].values()):
        _LOG.info(f"left out: {index['left_out']} {index['skipped']}")


def main() -> int:
    """Run the command line."""
    return run_command(_run, ConvertConfig)


if __name__ == "__main__":
    raise SystemExit(main())
