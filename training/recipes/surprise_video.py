"""`jepa-gym surprise VIDEO --model SOURCE`: where a recording is not what a model expects.

With a world model, VIDEO is the folder of a recorded episode, which tells states and with them the
actions; with the output of `jepa-gym pretrain` a bare video will do, too. Writes `surprise.png`,
the surprise over time with the frames below it, and `surprise.json`. Without `--usual` the surprise
is the plain error of the most surprising tokens, which is higher wherever the arm moves.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from jepa_gym.commands import run_command
from jepa_gym.config import FrameSpec
from jepa_gym.files import atomic_write
from jepa_gym.training.data.dataset import split_of
from jepa_gym.training.data.sources import Source, open_source
from jepa_gym.training.data.views import Reading
from jepa_gym.training.data.windows import stride_of
from jepa_gym.training.recipes.surprise import (
    UsualErrors,
    Watcher,
    frame_surprise,
    open_watcher,
)
from jepa_gym.training.recipes.surprise_plot import Curve, draw_surprise

_LOG = logging.getLogger(__name__)

USUAL_EPISODES = 200
"""Ordinary episodes that usual errors are learned from at most."""
NORMALISED, PLAIN = "standard deviations beyond the usual error", "mean absolute difference"


@dataclass(frozen=True)
class SurpriseConfig:
    """Show where a recording surprises a model."""

    video: Annotated[Path, tyro.conf.Positional]
    """A recorded episode's folder, or a video."""
    model: str = "default"
    """A world model, or the output of `jepa-gym pretrain`."""
    usual: Path | None = None
    """What errors are usual: a dataset like the one that the model learned from, whose validation
    episodes tell, or `usual.npz` of `benchmarks/surprise.py`."""
    output: Path = Path("surprise")
    """Folder for the picture and the numbers."""
    device: str = "cpu"
    """Where the model computes."""


@dataclass(frozen=True)
class Recorded:
    """A recording as a model sees it."""

    frames: np.ndarray
    """(T, Y, X, 3) uint8, of the model's size and rate."""
    states: np.ndarray | None
    """(T, 7)."""
    times_s: np.ndarray
    """(T,) when the frames were taken."""


def read_recorded(source: Source, episode_id: str, frame: FrameSpec) -> Recorded:
    """Read an episode at a model's rate and size.

    Videos without named cameras are cut to the model's aspect ratio about their centre and resized.

    Args:
        source: Where it lies.
        episode_id: Its id there.
        frame: What the model expects.

    Raises:
        ValueError: If the recording is slower than the model, as `stride_of` says, or lacks a
            camera.
    """
    recording = source.recording(episode_id)
    times = recording.times_s - recording.times_s[0]
    stride = stride_of(times, frame.step_s) if len(times) > 1 else 1
    rows = np.arange(0, len(times), stride)
    states = None if recording.states is None else recording.states[rows]
    if source.cameras == ("video",):
        pictures = source.frames(episode_id, "video", rows.tolist())
        return Recorded(_fitted(pictures, frame.height, frame.width), states, times[rows])
    missing = [name for name in frame.cameras if name not in source.cameras]
    if missing:
        raise ValueError(f"{source.path} has no camera {missing}; it has {source.cameras}")
    reading = Reading((frame.cameras,), frame.height, frame.step_s)
    return Recorded(reading.pictures(source, episode_id, 0, rows), states, times[rows])


def _fitted(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut frames (T, Y, X, 3) to an aspect ratio about their centre, and resize them."""
    rows, columns = frames.shape[1:3]
    if (rows, columns) == (height, width):
        return frames
    scale = min(rows / height, columns / width)
    tall, wide = round(scale * height), round(scale * width)
    top, left = (rows - tall) // 2, (columns - wide) // 2
    cut = torch.from_numpy(frames[:, top : top + tall, left : left + wide].copy())
    images = cut.permute(0, 3, 1, 2).float()
    images = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def usual_errors(path: Path, watcher: Watcher) -> UsualErrors:
    """Learn, or read, which errors of a model are usual.

    Args:
        path: Recorded data of ordinary behaviour, or a file of `UsualErrors.save`.
        watcher: The model.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: There are too few episodes.
    """
    if path.suffix == ".npz":
        return UsualErrors.load(path)
    source = open_source(path)
    chosen = [name for name in source.ids() if split_of(name) == "validation"][:USUAL_EPISODES]
    clips = (read_recorded(source, name, watcher.frame) for name in chosen)
    return UsualErrors.fit([watcher.watch(clip.frames, clip.states) for clip in clips])


def surprise(config: SurpriseConfig) -> None:
    """Watch a recording and write what was surprising.

    Raises:
        FileNotFoundError, ValueError: If recording, model or usual errors cannot be used.
    """
    source = open_source(config.video)
    ids = source.ids()
    if len(ids) != 1:
        raise ValueError(
            f"{config.video} holds {len(ids)} episodes or videos: give one of them, as {ids[:3]}"
        )
    watcher = open_watcher(config.model, config.device)
    recorded = read_recorded(source, ids[0], watcher.frame)
    states = recorded.states if watcher.needs_states else None
    errors = watcher.watch(recorded.frames, states)
    if config.usual is None:
        unit, scores = PLAIN, frame_surprise(errors.values)
    else:
        unit, scores = (
            NORMALISED,
            frame_surprise(usual_errors(config.usual, watcher).beyond(errors)),
        )
    kind = "action-conditioned" if watcher.needs_states else "masked"
    most = int(scores.argmax())
    told = {
        "video": str(config.video),
        "model": config.model,
        "prediction": kind,
        "unit": unit,
        "surprise": float(scores[most]),
        "most_surprising_s": float(recorded.times_s[errors.first + most]),
        "frames": [
            {"time_s": round(float(time), 4), "surprise": float(score)}
            for time, score in zip(recorded.times_s[errors.first :], scores, strict=True)
        ],
    }
    with atomic_write(config.output / "surprise.json") as file:
        file.write_text(json.dumps(told, indent=2) + "\n")
    draw_surprise(
        config.output / "surprise.png",
        f"{config.video.name}, {kind} prediction by {config.model}",
        {"surprise": Curve(recorded.frames, errors.first, scores)},
        watcher.frame.step_s,
        unit,
    )
    _LOG.info(
        f"{config.video}: most surprising at {told['most_surprising_s']:.2f} s, "
        f"{told['surprise']:.3g} ({unit}); {config.output}/surprise.png and .json tell all"
    )


def main() -> int:
    """Run the command line."""
    return run_command(surprise, SurpriseConfig)


if __name__ == "__main__":
    raise SystemExit(main())
