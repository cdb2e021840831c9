"""A user's folder of videos and a table of labels, for probes of the published kind.

A table in CSV has a heading with some of these columns (those of EPIC-KITCHENS-100 are understood):
`path` of the video below the folder, or `video_id`, its name without folder and ending; `label`, or
`verb` and `noun` (`verb_class`, `noun_class`); `start_s` and `stop_s` (`start_timestamp`,
`stop_timestamp`) in seconds or h:m:s, where it is not the whole video; `split`, one of train,
validation and test, else drawn by a hash of the video (70, 15 and 15 %).

A list without a heading, `path label` with a space between them on each line, is the published one
of Kinetics and Something-Something. For anticipation a clip ends some time before an action starts.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jepa_gym.names import check_choice
from jepa_gym.preprocess import evaluation_crop, spatial_crops
from jepa_gym.training.data.content import combined_hash, hash_files
from jepa_gym.training.data.dataset import SPLITS
from jepa_gym.training.data.sources.videos import VideoSource
from jepa_gym.training.recipes.probe_examples import (
    Examples,
    Outputs,
    class_names,
    class_numbers,
    words_of,
)

VALIDATION_SHARE, TEST_SHARE = 0.15, 0.15
_NAMES = {
    "verb": ("verb_class", "verb"),
    "noun": ("noun_class", "noun"),
    "start_s": ("start_s", "start_timestamp"),
    "stop_s": ("stop_s", "stop_timestamp"),
}
"""What a column is called, the most specific name first."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How clips are taken from videos."""

    frames: int
    """T of a clip."""
    fps: float
    """Pictures a second."""
    image_size: int
    """Height and width of a picture, pixels, cropped as in the published evaluations."""
    ahead_s: float | None = None
    """Seconds from a clip's last picture to an action that is anticipated; None for the clips of
    what is labelled themselves."""
    segments: int = 1
    """Clips of each video that is not for training, from so many equal parts of it."""
    crops: int = 1
    """Squares of each of them, along its longer side; 1 is the middle."""
    most: Mapping[str, int] | None = None
    """Split -> most videos; the first ones of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table of labels."""

    video: str
    """Its path below the folder."""
    words: tuple[object, str]
    """Label and nothing, or verb and noun."""
    start_s: float
    """Where it begins in the video."""
    stop_s: float | None
    """Where it ends; None for the video's end."""
    split: str
    """Of `SPLITS`."""


def video_examples(
    folder: Path, table: Path, sampling: Sampling, classes: Sequence[str] = ()
) -> tuple[dict[str, Examples], Outputs, str]:
    """Read a table of labels, and find the clips in the videos.

    Args:
        folder: Of the videos.
        table: The labels.
        sampling: How clips are taken.
        classes: Those that a published probe knows; () for those of the training clips.

    Returns:
        Split -> its clips; output -> names of its classes; a hash of labels and videos.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the table cannot be used.
    """
    source = VideoSource(folder)
    rows = read_table(table, source.ids(), sampling.ahead_s is not None)
    anticipated = sampling.ahead_s is not None
    by_split = {split: [row for row in rows if row.split == split] for split in SPLITS}
    for split, found in by_split.items():
        if not found:
            raise ValueError(
                f"{table}: none of the {len(rows)} clips is in the {split} split; give a column "
                f"`split` with {', '.join(SPLITS)}"
            )
        if sampling.most:
            by_split[split] = found[: sampling.most[split]]
    outputs = class_names(words_of(anticipated, [row.words for row in by_split["train"]]), classes)
    strange = sorted({str(row.words[0]) for row in rows} - set(classes)) if classes else []
    if strange:
        raise ValueError(
            f"{table} has labels that the probe does not know ({', '.join(strange[:5])}): it tells "
            f"classes {classes[0]} to {classes[-1]}"
        )
    examples = {}
    for split, found in by_split.items():
        once = replace(sampling, segments=1, crops=1) if split == "train" else sampling
        views = list(product(range(once.segments), range(once.crops)))
        shown = [(row, view) for row in found for view in views]
        examples[split] = Examples(
            frames=partial(_clips, source, shown, once),
            labels=class_numbers(words_of(anticipated, [row.words for row, _ in shown]), outputs),
            groups=tuple(row.video for row, _ in shown),
            names=tuple(f"{n} {row} {view} {once}" for n, (row, view) in enumerate(shown)),
            views=len(views),
        )
    used = [folder / video for video in {row.video for row in rows}]
    digest = combined_hash(hash_files(folder, used, {}))
    return examples, outputs, hashlib.sha256(digest.encode() + table.read_bytes()).hexdigest()


def read_table(table: Path, videos: Sequence[str], anticipated: bool) -> list[Row]:
    """Read a table of labels.

    Args:
        table: The file.
        videos: Paths of the videos that there are.
        anticipated: Whether it must tell verb, noun and start.

    Raises:
        FileNotFoundError: If there is no such table, or a video that it names.
        ValueError: If a column or value is missing; the message names the line.
    """
    if not table.is_file():
        raise FileNotFoundError(f"{table} not found: --labels names a CSV file with labels")
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    if lines and "," not in lines[0]:
        columns = ["path", "label"]
        lines = [",".join(f'"{x}"' for x in line.rsplit(maxsplit=1)) for line in lines]
        entries, first = csv.DictReader(lines, columns), 1
    else:
        entries, first = csv.DictReader(lines), 2
    known = {path: path for path in videos} | {Path(path).stem: path for path in videos}
    rows = []
    for number, entry in enumerate(entries, first):
        try:
            rows.append(_row(entry, known, anticipated))
        except KeyError as error:
            have = ", ".join(map(str, entry))
            raise ValueError(
                f"{table}, line {number}: there is no {error}; its columns are {have}"
            ) from None
        except (ValueError, OSError) as error:
            raise type(error)(f"{table}, line {number}: {error}") from None
    if not rows:
        raise ValueError(f"{table} holds no labels")
    return rows


def _row(entry: Mapping[str, Any], known: Mapping[str, str], anticipated: bool) -> Row:
    named = entry["path"] if "path" in entry else entry["video_id"]
    video = known.get(str(named).strip()) or known.get(Path(str(named)).stem)
    if video is None:
        raise FileNotFoundError(f"there is no video {named!r} below --data")
    start = _value(entry, "start_s", required=anticipated)
    stop = _value(entry, "stop_s")
    words = (
        (str(_value(entry, "verb", True)), str(_value(entry, "noun", True)))
        if anticipated
        else (str(entry["label"]), "")
    )
    split = (entry.get("split") or "").strip() or _drawn(video)
    check_choice("split", split, SPLITS)
    return Row(
        video,
        words,
        _seconds(start) if start else 0.0,
        _seconds(stop) if stop else None,
        split,
    )


def _value(entry: Mapping[str, Any], name: str, required: bool = False) -> str | None:
    found = next((entry[x] for x in _NAMES[name] if entry.get(x) not in (None, "")), None)
    if found is None and required:
        raise KeyError(name)
    return found


def _seconds(text: str) -> float:
    """Turn seconds, or hours:minutes:seconds, into seconds."""
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    if not 0 <= total < float("inf"):
        raise ValueError(f"a time must be at least 0, got {text!r}")
    return total


def _drawn(video: str) -> str:
    """Return the split of a video that the table does not tell."""
    draw = int.from_bytes(hashlib.sha256(video.encode()).digest()[:4], "big") / 2**32
    if draw < TEST_SHARE:
        return "test"
    return "validation" if draw < TEST_SHARE + VALIDATION_SHARE else "train"


View = tuple[int, int]
"""Number of the part of a video, and of the square of its pictures."""


def _clips(
    source: VideoSource,
    shown: Sequence[tuple[Row, View]],
    sampling: Sampling,
    numbers: Sequence[int],
) -> np.ndarray:
    return np.stack([_clip(source, *shown[number], sampling) for number in numbers])


def _clip(source: VideoSource, row: Row, view: View, sampling: Sampling) -> np.ndarray:
    """Read a clip: the middle of a part of what is labelled, or what comes some time before it.

    Where a video is too short, its first or last picture is repeated.
    """
    times = source.recording(row.video).times_s
    times = times - times[0]
    steps = np.arange(sampling.frames) / sampling.fps
    if sampling.ahead_s is not None:
        wanted = row.start_s - sampling.ahead_s - steps[::-1]
    else:
        stop = times[-1] if row.stop_s is None else min(row.stop_s, times[-1])
        if row.start_s > stop:
            raise ValueError(
                f"{row.video} ends at {times[-1]:.2f} s, its label begins at {row.start_s:.2f} s"
            )
        ends = np.linspace(row.start_s, stop, sampling.segments + 1)[view[0] : view[0] + 2]
        wanted = np.clip(ends.mean() - steps[-1] / 2, row.start_s, None) + steps
        wanted = np.minimum(wanted, stop)
    # a little more, as 0.2 s is not before the picture of 0.2 s
    pictures = np.searchsorted(times, wanted + 1e-6, "right") - 1
    frames = source.frames(row.video, "video", np.clip(pictures, 0, None).tolist())
    batch, size = torch.from_numpy(frames[None]), sampling.image_size
    if sampling.crops == 1:
        return evaluation_crop(batch, size)[0].numpy()
    return spatial_crops(batch, size, sampling.crops)[0, view[1]].numpy()
