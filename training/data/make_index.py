"""Make a dataset of other people's recordings: `jepa-gym make-index FOLDER`.

Nothing is converted or copied. All episodes are looked at once; those that are used, and why others
are not, are written to `episodes.json`, and how they are read to `dataset.json`, so that `--data
FOLDER` works in every recipe. Several folders, or parts of one at different rates, make a mixture.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tyro.conf import Positional

import jepa_gym
from jepa_gym.commands import run_command
from jepa_gym.config import STATE_CONVENTIONS
from jepa_gym.files import atomic_write, parse_json
from jepa_gym.logs import progress_bar
from jepa_gym.names import check_choice
from jepa_gym.training.data import content
from jepa_gym.training.data.dataset import INDEX_NAME, write_index
from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.indexed import EPISODES_NAME, Episodes
from jepa_gym.training.data.sources import FORMATS, Source, open_source
from jepa_gym.training.data.units import suspicion
from jepa_gym.training.data.views import CROPS, Reading
from jepa_gym.training.data.windows import Entry, cut_episode
from jepa_gym.training.data.workers import work

_LOG = logging.getLogger(__name__)

USUAL_SHARE = 0.999
"""Share of the moves that `max_move_m` covers where it is measured; the rest are glitches."""
LEAST_MOVE_M, DEFAULT_MOVE_M = 0.001, 0.075
NAMED_REASONS = 5


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """Make a dataset of recordings in any known format, where they lie."""

    data: Positional[tuple[Path, ...]]
    """Folders or files with recordings."""
    output: Path | None = None
    """Folder of the dataset; by default the recordings' own, where there is just one."""
    weights: tuple[float, ...] = ()
    """How often each of several folders is drawn from; by default all alike."""
    format: str | None = None
    """droid, jepa-gym, ...; recognised by default."""
    cameras: tuple[str, ...] = ()
    """Views; `left+wrist` puts two side by side, `left right` makes two samples of each episode. By
    default `left`, or the only one."""
    image_size: int = 256
    """Height and width that a view shall have, pixels."""
    crop: str = "squash"
    """`squash` as V-JEPA 2-AC was trained: the centre, at most 1.35 : 1, squashed to a square; or
    `square`: the centre square."""
    step_s: float = 0.25
    """Seconds between two frames; every n-th recorded frame is taken."""
    frames: int = 16
    """Frames of the windows that episodes are cut into; shorter episodes are left out."""
    max_move_m: float | None = None
    """Bound of one step's translation per axis, metres; measured by default."""
    state_convention: str | None = None
    """hand or droid: what the states are the pose of, where the format does not tell."""
    verify: bool = False
    """Decode every frame instead of the first and the last of an episode."""
    workers: int = max(1, os.cpu_count() or 1)
    """Processes."""

    def __post_init__(self) -> None:
        """Check ranges and names, before anything is read."""
        if not self.data:
            raise ValueError("name at least one folder with recordings")
        if self.weights and len(self.weights) != len(self.data):
            raise ValueError(
                f"`weights` must be as many as the folders, {len(self.data)}, got {self.weights}"
            )
        if not all(weight > 0 for weight in self.weights):
            raise ValueError(f"`weights` must be positive, got {self.weights}")
        if self.output is None and len(self.data) > 1:
            raise ValueError("`output` must name a folder for the index of several folders")
        for name in ("image_size", "step_s", "workers", "max_move_m"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        if self.frames < 2:
            raise ValueError(f"`frames` must be at least 2, got {self.frames}")
        check_choice("crop", self.crop, CROPS)
        check_choice("format", self.format, (None, *FORMATS))
        check_choice("state_convention", self.state_convention, (None, *STATE_CONVENTIONS))


@dataclass(frozen=True)
class Measured:
    """What one episode gives."""

    windows: int
    moves_m: np.ndarray
    """(steps,) largest translation per axis of each step; empty without states."""
    states: np.ndarray | None
    """(T, 7) of the first window; None where none were recorded."""


def make_index(config: IndexConfig) -> dict[str, Any]:
    """Look at all episodes and write the index.

    Returns:
        The content of `dataset.json`.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If no episode can be used, folders do not go together, or the output holds
            another dataset.
    """
    folder = config.output or config.data[0]
    if folder.is_file():
        raise ValueError(f"{folder} is a file: `output` must name a folder for its index")
    _check_output(folder)
    sources = tuple(open_source(path, config.format) for path in config.data)
    convention = _convention(config, sources)
    samples = _samples(config, sources)
    reading = Reading(samples, config.image_size, config.step_s, config.crop, config.frames)
    measured, left_out = _look_at_all(config, sources, reading)
    left_out |= _copies(folder, Episodes(sources, tuple(measured), reading))
    kept = {entry: one for entry, one in measured.items() if entry not in left_out}
    if not kept:
        raise ValueError(
            f"none of the {len(left_out)} episodes in {', '.join(map(str, config.data))} can be "
            f"used: {_in_words(_reasons(left_out))}"
        )
    states = [one.states for one in kept.values() if one.states is not None]
    doubt = suspicion(np.concatenate(states), convention) if states and convention else None
    if doubt:
        _LOG.warning(f"probably wrong: {doubt}")
    _write_episodes(folder, len(sources), list(kept), left_out)
    weights = config.weights or [1.0] * len(sources)
    described = [
        {"path": os.path.relpath(source.path, folder), "format": source.format, "weight": weight}
        for source, weight in zip(sources, weights, strict=True)
    ]
    moves_m = np.concatenate([one.moves_m for one in kept.values()])
    index = {
        "sources": described,
        "samples": samples,
        "cameras": samples[0],
        "image_size": config.image_size,
        "crop": config.crop,
        "step_s": config.step_s,
        "window_frames": config.frames,
        "windows": sum(one.windows for one in kept.values()) * len(samples),
        "max_move_m": config.max_move_m or usual_move(moves_m),
        "has_states": len(states) == len(kept),
        "left_out": _reasons(left_out),
        "versions": {"jepa_gym": jepa_gym.__version__},
    }
    return write_index(folder, index | ({"state_convention": convention} if convention else {}))


def _look_at_all(
    config: IndexConfig, sources: tuple[Source, ...], reading: Reading
) -> tuple[dict[Entry, Measured], dict[Entry, str]]:
    """Look at every episode; return what some give, and why others cannot be used."""
    entries = [(number, name) for number, x in enumerate(sources) for name in x.ids()]
    measured: dict[Entry, Measured] = {}
    left_out: dict[Entry, str] = {}
    processes = min(config.workers, len(entries) or 1)
    results = work(partial(_measure, sources, reading, config.verify), entries, processes)
    shown = progress_bar(results, "looking at episodes", len(entries), unit="episode")
    for entry, result in zip(entries, shown, strict=True):
        if isinstance(result, str):
            left_out[entry] = result
        else:
            measured[entry] = result
    return measured, left_out


def _check_output(folder: Path) -> None:
    """Refuse to write over the index of a collection.

    Raises:
        ValueError: If the folder holds one.
    """
    path = folder / INDEX_NAME
    if path.is_file() and "sources" not in parse_json(path.read_text()):
        raise ValueError(
            f"{path} was written by `jepa-gym collect` and works as it is; give --output for an "
            "index of other windows, views or rates"
        )


def _convention(config: IndexConfig, sources: Sequence[Source]) -> str | None:
    found = {source.state_convention for source in sources} - {None}
    if config.state_convention is None and len(found) > 1:
        raise ValueError(
            f"states are the pose of the {' and of the '.join(sorted(map(str, found)))} in these "
            "folders, which no model can tell apart; convert one of them"
        )
    return config.state_convention or next(iter(found), None)


def _samples(config: IndexConfig, sources: Sequence[Source]) -> tuple[tuple[str, ...], ...]:
    """Return the views of every sample.

    Raises:
        ValueError: If a source does not have one of them.
    """
    known = [camera for camera in sources[0].cameras if all(camera in x.cameras for x in sources)]
    if not known:
        raise ValueError(
            "the folders have no camera in common: "
            + "; ".join(f"{source.path} {source.cameras}" for source in sources)
        )
    views = config.cameras or ("left" if "left" in known else known[0],)
    samples = tuple(tuple(view.split("+")) for view in views)
    for camera in (camera for sample in samples for camera in sample):
        check_choice("cameras", camera, known)
    return samples


def _measure(
    sources: Sequence[Source], reading: Reading, verify: bool, entry: Entry
) -> Measured | str:
    """Look at an episode in a worker; return what it gives, or why it cannot be used."""
    number, name = entry
    cut = cut_episode(sources, reading, entry)
    if isinstance(cut, CorruptEpisodeError):
        return cut.reason
    times_s, states = cut.recording.times_s, cut.recording.states
    if not cut.rows:
        seconds = times_s[-1] - times_s[0]
        return (
            f"too short: {seconds:.3g} s without a gap are less than {reading.frames} frames every "
            f"{reading.step_s:g} s"
        )
    rows = np.arange(len(times_s)) if verify else np.array([0, len(times_s) - 1])
    try:
        for camera in sorted({camera for sample in reading.samples for camera in sample}):
            for part in np.array_split(rows, max(1, len(rows) // 64)):
                sources[number].frames(name, camera, part.tolist())
    except CorruptEpisodeError as error:
        return error.reason
    moves = [
        np.zeros(0) if states is None else np.abs(np.diff(states[x, :3], axis=0)).max(1)
        for x in cut.rows
    ]
    some = None if states is None else states[cut.rows[0]]
    return Measured(len(cut.rows), np.concatenate(moves), some)


def usual_move(moves_m: np.ndarray) -> float:
    """Return a bound that holds for nearly all moves, in whole millimetres."""
    if not len(moves_m):
        return DEFAULT_MOVE_M
    usual = float(np.quantile(moves_m, USUAL_SHARE))
    return max(LEAST_MOVE_M, round(float(np.ceil(1000 * usual - 1e-3)) / 1000, 3))


def _copies(folder: Path, episodes: Episodes) -> dict[Entry, str]:
    """Find episodes whose files are another's: in two splits, one would give the other away.

    Files that several episodes share tell nothing.
    """
    files = episodes.hashes(folder, content.read_files(folder))
    content.write_files(folder, files)
    owned: dict[Entry, list[str]] = {}
    for number, name in episodes.entries:
        source = episodes.sources[number]
        paths = [x for x in source.files(name) if x.suffix != ".json"]
        owned[number, name] = [episodes.file_name(number, path) for path in paths]
    owners = Counter(name for names in owned.values() for name in names)
    first: dict[tuple[str, ...], Entry] = {}
    copies = {}
    for entry, names in owned.items():
        digests = tuple(files[name][2] for name in names if owners[name] == 1)
        original = first.setdefault(digests, entry) if digests else entry
        if original != entry:
            copies[entry] = f"a copy of {episodes.sources[original[0]].path / original[1]}"
    return copies


def _write_episodes(
    folder: Path, sources: int, kept: Sequence[Entry], left_out: dict[Entry, str]
) -> None:
    text = json.dumps(
        {
            "kept": [[name for which, name in kept if which == n] for n in range(sources)],
            "left_out": [
                {"source": number, "id": name, "why": why}
                for (number, name), why in left_out.items()
            ],
        },
        indent=1,
    )
    with atomic_write(folder / EPISODES_NAME) as path:
        path.write_text(text + "\n")


def _reasons(left_out: Mapping[Entry, str]) -> dict[str, int]:
    """Count reasons that differ in their numbers or paths only; one of each stands for all."""
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for why in left_out.values():
        kind = re.sub(r"\S*[\d/]\S*", "", why)
        counts[examples.setdefault(kind, why)] += 1
    return dict(counts.most_common(NAMED_REASONS))


def _in_words(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{number} x {why}" for why, number in reasons.items())


def _run(config: IndexConfig) -> None:
    index = make_index(config)
    folder = config.output or config.data[0]
    _LOG.info(
        f"{folder}: {index['episodes']} episodes, {index['windows']} windows of "
        f"{index['window_frames']} frames every {index['step_s']:g} s, moves up to "
        f"{index['max_move_m']:g} m, content hash {index['content_hash'][:16]}"
    )
    if index["left_out"]:
        _LOG.info(f"left out, see {folder / EPISODES_NAME}: {_in_words(index['left_out'])}")


def main() -> int:
    """Run the command line."""
    return run_command(_run, IndexConfig)


if __name__ == "__main__":
    raise SystemExit(main())
