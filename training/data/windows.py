"""From recordings to windows: rows of frames a step of physical time apart, all of one length.

A recording is thinned out to every n-th frame, n = round(step / recorded step), and cut into
windows of equal length, one after the other. So episodes of any length make one array (E, T, ...),
and a clip never runs over a gap in the recording.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np

from jepa_gym.training.data.episodes import CorruptEpisodeError
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.views import Reading
from jepa_gym.training.data.workers import work

STEP_TOLERANCE = 0.1
"""By which the time between two frames may differ from the step, as a share of it."""
GAP = 0.5
"""By how much one step may differ within a recording; clocks of real recorders are not even."""
EPISODES_PER_PROCESS = 64
"""Fewer are read before another process has started."""

Entry = tuple[int, str]
"""Number of a source and the id of an episode of it."""


def stride_of(times_s: np.ndarray, step_s: float) -> int:
    """Return every how many recorded frames a step has passed.

    Args:
        times_s: (T,) of the recorded frames, T at least 2.
        step_s: The step asked for, seconds.

    Raises:
        ValueError: If no stride comes within 10 % of the step.
    """
    recorded = float(np.median(np.diff(times_s)))
    stride = max(1, round(step_s / recorded))
    if abs(stride * recorded - step_s) > STEP_TOLERANCE * step_s:
        around = range(max(1, stride - 1), stride + 3)
        steps = ", ".join(f"{n * recorded:.4g} s (every {n}.)" for n in around)
        raise ValueError(
            f"frames were recorded every {recorded:.4g} s, so no stride gives a step of "
            f"{step_s:g} s within {STEP_TOLERANCE:.0%}; there are {steps}"
        )
    return stride


def window_rows(times_s: np.ndarray, step_s: float, frames: int | None) -> list[np.ndarray]:
    """Cut a recording into windows.

    Args:
        times_s: (T,) of the recorded frames; a still has one.
        step_s: Time between two frames of a window, seconds.
        frames: Length of a window; None takes the whole recording as one.

    Returns:
        Windows that do not overlap: rows of the recording, (`frames`,) each. Steps that are off by
        half, where a recorder paused, lie in none. A still is one window, its frame repeated.

    Raises:
        ValueError: If no stride comes near the step.
    """
    if len(times_s) == 1:
        return [np.zeros(frames or 1, np.int64)]
    stride = stride_of(times_s, step_s)
    if frames is None:
        return [np.arange(0, len(times_s), stride)]
    span = (frames - 1) * stride + 1
    found, start = [], 0
    while start + span <= len(times_s):
        rows = np.arange(start, start + span, stride)
        uneven = np.flatnonzero(np.abs(np.diff(times_s[rows]) - step_s) > GAP * step_s)
        if len(uneven):
            start = int(rows[uneven[-1] + 1])
        else:
            found.append(rows)
            start = int(rows[-1]) + stride
    return found


@dataclass(frozen=True)
class Windows:
    """All windows of a dataset: W of T frames, those of the same episode after each other."""

    ids: np.ndarray
    """(W,) id of the episode."""
    source: np.ndarray
    """(W,) number of the source."""
    sample: np.ndarray
    """(W,) number of the views that it shows, see `Reading.samples`."""
    rows: np.ndarray
    """(W, T) rows of the recording."""
    states: np.ndarray
    """(W, T, 7) float64; zeros where none were recorded."""
    extrinsics: np.ndarray
    """(W, T, views, 6) float64; NaN where they were not recorded."""
    sound: np.ndarray
    """(W,) bool, whether the frames could be decoded, as far as that was tried."""
    skipped: np.ndarray
    """Why corrupt episodes were left out, one text for each."""

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, path: Path) -> None:
        """Write an .npz file."""
        with path.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Windows:
        """Read an .npz file.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged.
        """
        with path.open("rb") as file:
            try:
                with np.load(file) as arrays:
                    windows = cls(**{field.name: arrays[field.name] for field in fields(cls)})
                count, length = windows.rows.shape
                columns = (windows.ids, windows.source, windows.sample, windows.sound)
                sound = all(column.shape == (count,) for column in columns)
                sound &= windows.states.shape == (count, length, 7)
                sound &= windows.extrinsics.shape[:2] == (count, length)
            except (ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
                raise ValueError(f"{path.name}: {error}") from error
        if not sound:
            raise ValueError(f"{path.name} holds arrays that do not fit each other")
        return windows


@dataclass(frozen=True)
class Cut:
    """The windows of one episode."""

    rows: list[np.ndarray]
    """(T,) each."""
    recording: Recording


def cut_episode(
    sources: Sequence[Source], reading: Reading, entry: Entry
) -> Cut | CorruptEpisodeError:
    """Read the numbers of an episode and cut it; what is wrong comes back as the error itself.

    Args:
        sources: All sources.
        reading: How it is read.
        entry: The episode.
    """
    number, name = entry
    source = sources[number]
    try:
        recording = source.recording(name)
        try:
            rows = window_rows(recording.times_s, reading.step_s, reading.frames)
        except ValueError as error:
            raise CorruptEpisodeError(source.path / name, str(error)) from error
        for camera in sorted({camera for sample in reading.samples for camera in sample}):
            count, expected = source.frame_count(name, camera), len(recording.times_s)
            if count != expected:
                raise CorruptEpisodeError(
                    source.path / name,
                    f"{camera} has {count} frames, the trajectory {expected} rows",
                )
    except CorruptEpisodeError as error:
        return error
    return Cut(rows, recording)


def cut_all(
    sources: Sequence[Source], reading: Reading, entries: Sequence[Entry], skip_corrupt: bool
) -> Windows:
    """Read the numbers of all episodes and cut them.

    Args:
        sources: All sources.
        reading: How they are read.
        entries: The episodes.
        skip_corrupt: Leave corrupt ones out instead of raising.

    Raises:
        CorruptEpisodeError: If an episode is corrupt and `skip_corrupt` is off.
        ValueError: If none is left, or whole episodes differ in length.
    """
    found: list[tuple[str, int, int, np.ndarray, np.ndarray, np.ndarray]] = []
    skipped: list[str] = []
    processes = min(os.cpu_count() or 1, 1 + len(entries) // EPISODES_PER_PROCESS)
    cuts = work(partial(cut_episode, sources, reading), entries, processes)
    for (number, name), cut in zip(entries, cuts, strict=True):
        if isinstance(cut, CorruptEpisodeError):
            if not skip_corrupt:
                raise cut
            skipped.append(str(cut))
            continue
        for sample, cameras in enumerate(reading.samples):
            for rows in cut.rows:
                numbers = _numbers(cut.recording, cameras, rows)
                found.append((name, number, sample, rows, *numbers))
    if not found:
        where = sources[0].path
        raise ValueError(
            f"{where}: every episode is corrupt"
            if skipped
            else f"{where}: no episode holds {reading.frames} frames at {reading.step_s:g} s"
        )
    lengths = sorted({len(rows) for _, _, _, rows, _, _ in found})
    if len(lengths) > 1:
        raise ValueError(
            f"the episodes have {lengths[0]} to {lengths[-1]} frames, and nothing says in windows "
            f"of what length they are to be cut; `jepa-gym make-index {sources[0].path} --frames "
            "16 --output FOLDER` makes an index that does"
        )
    ids, source, sample, rows, states, extrinsics = zip(*found, strict=True)
    return Windows(
        ids=np.array(ids),
        source=np.array(source),
        sample=np.array(sample),
        rows=np.stack(rows),
        states=np.stack(states),
        extrinsics=np.stack(extrinsics),
        sound=np.ones(len(ids), bool),
        skipped=np.array(skipped, np.str_),
    )


def _numbers(
    recording: Recording, cameras: Sequence[str], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the states (T, 7) and the views' extrinsics (T, views, 6) of a window."""
    states = np.zeros((len(rows), 7)) if recording.states is None else recording.states[rows]
    unknown = np.full((len(recording.times_s), 6), np.nan)
    poses = [recording.extrinsics.get(camera, unknown)[rows] for camera in cameras]
    return states, np.stack(poses, axis=1)
