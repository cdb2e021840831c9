"""Write one of our datasets as one of LeRobot, format v3; see `sources.lerobot` for the layout.

Pictures are not encoded again: the packets of our videos are put one after the other into files of
many episodes, so that LeRobot decodes the same pixels. Numbers are float32, as its policies expect.
Each row's `action` is the one that follows its frame, the last row's is zero: stay. What LeRobot
has no place for is kept in `meta/jepa-gym.json`: ids (so that what was held out stays so), labels,
units. The simulator's states are not written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from filelock import FileLock, Timeout

from jepa_gym.files import atomic_write
from jepa_gym.logs import progress_bar
from jepa_gym.poses import difference
from jepa_gym.training.data.lerobot_tables import (
    combined_statistics,
    episode_table,
    statistics,
    tasks_table,
    write_tables,
)
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.sources.lerobot import (
    EULER_NAMES,
    EXTRINSICS,
    INFO,
    OWN,
    PICTURES,
    STATE,
    parquet,
)

FILES_PER_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
"""Sizes that LeRobot recommends."""
EPISODES_PER_FILE = 1000
"""Rows of a file of `meta/episodes`."""
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
SAMPLED_FRAMES = 4
"""Frames of an episode that statistics of pictures are taken from."""
Statistics = dict[str, dict[str, np.ndarray]]
"""Feature -> min, max, mean, std, count and quantiles."""


def write_lerobot(source: Source, index: Mapping[str, Any], output: Path) -> None:
    """Write a dataset whole or not at all.

    Args:
        source: Episodes in our own layout.
        index: The content of their `dataset.json`.
        output: The new dataset's folder.

    Raises:
        FileExistsError: If there is such a folder.
        ImportError: If pyarrow is not installed.
        ValueError: If another process writes there, a step is no whole number of frames per second,
            or episodes differ in what was recorded.
    """
    parquet()  # says what to install
    if output.exists():
        raise FileExistsError(f"{output} exists: give another folder, or delete it")
    rate = 1.0 / float(index["step_s"])
    if abs(rate - round(rate)) > 1e-6:
        raise ValueError(
            f"LeRobot counts whole frames per second, a step of {index['step_s']:g} s is "
            f"{rate:.3g} of them: convert to a step of 1 s over a whole number first (--step-s)"
        )
    with _folder(output) as folder:
        _Writer(source, index, folder, round(rate)).write()


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """Yield a folder that becomes `output` when the block ends well, for one process only."""
    temporary = output.parent / f".{output.name}.tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    lock = temporary / ".lock"
    try:
        with FileLock(lock, timeout=0):
            for left_over in temporary.iterdir():
                if left_over.is_dir():  # of a process that was killed
                    shutil.rmtree(left_over)
            try:
                yield temporary
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            lock.unlink()
            temporary.rename(output)
    except Timeout as error:
        raise ValueError(f"another process writes {output}: wait until it is done") from error


class _Writer:
    """Writes episode after episode, and at the end what is known about all of them."""

    def __init__(
        self, source: Source, index: Mapping[str, Any], folder: Path, frames_per_s: int
    ) -> None:
        self.source, self.index, self.folder, self.fps = source, index, folder, frames_per_s
        self.ids = source.ids()
        self.features = self._features()
        self.videos = {c: _Videos(folder, PICTURES + c, frames_per_s) for c in source.cameras}
        self.tasks: dict[str, int] = {}
        self.rows: list[dict[str, Any]] = []
        self.labels: dict[str, dict[str, Any]] = {}
        self.measured: list[Statistics] = []

    def write(self) -> None:
        tables: list[Any] = []
        size = file = first = 0
        for number, name in enumerate(progress_bar(self.ids, "writing episodes", unit="episode")):
            recording = self.source.recording(name)
            self.labels[name] = dict(recording.metadata)
            columns, task = self._columns(recording, number, first)
            tables.append(episode_table(columns, self.features))
            row: dict[str, Any] = {
                "episode_index": number,
                "tasks": [task],
                "length": len(recording.times_s),
                "data/chunk_index": file // FILES_PER_CHUNK,
                "data/file_index": file % FILES_PER_CHUNK,
                "dataset_from_index": first,
                "dataset_to_index": first + len(recording.times_s),
            }
            for camera, video in self.videos.items():
                row |= video.append(self._video(name, camera), len(recording.times_s))
            self._measure(name, columns, row)
            first, size = row["dataset_to_index"], size + tables[-1].nbytes
            if size >= DATA_MB << 20 or number == len(self.ids) - 1:
                write_tables(tables, self.folder / "data" / f"{_place(file)}.parquet")
                tables, size, file = [], 0, file + 1
        for video in self.videos.values():
            video.close()
        self._write_metadata(first)

    def _features(self) -> dict[str, dict[str, Any]]:
        """Describe the columns; those that one of the episodes lacks are left out."""
        optional = {"next.reward", "next.success", *self.source.cameras}
        for name in self.ids:
            recording = self.source.recording(name)
            here = {"next.reward"} if recording.rewards is not None else set()
            here |= {"next.success"} if recording.success is not None else set()
            optional &= here | recording.extrinsics.keys()
        features: dict[str, dict[str, Any]] = {}
        for camera in self.source.cameras:
            rows, columns = self.source.frames(self.ids[0], camera, [0]).shape[1:3]
            features[PICTURES + camera] = {
                "dtype": "video",
                "shape": [rows, columns, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": rows, "video.width": columns, "video.codec": "h264",
                    "video.pix_fmt": "yuv420p", "video.is_depth_map": False,
                    "video.fps": self.fps, "video.channels": 3, "has_audio": False,
                },
            }  # fmt: skip
        features[STATE] = _feature("float32", 7, list(EULER_NAMES))
        features["action"] = _feature("float32", 7, [f"d{name}" for name in EULER_NAMES])
        for camera in self.source.cameras:
            if camera in optional:
                features[EXTRINSICS + camera] = _feature("float32", 6, list(EULER_NAMES[:6]))
        for name, kind in (("next.reward", "float32"), ("next.success", "bool")):
            if name in optional:
                features[name] = _feature(kind, 1)
        features["timestamp"] = _feature("float32", 1)
        for name in ("frame_index", "episode_index", "index", "task_index"):
            features[name] = _feature("int64", 1)
        return features

    def _columns(
        self, recording: Recording, number: int, first: int
    ) -> tuple[dict[str, np.ndarray], str]:
        """Return the columns of an episode, (T, ...) each, and its task in words."""
        assert recording.states is not None  # our layout always has them
        states, steps = recording.states, len(recording.times_s)
        actions = recording.actions
        if actions is None:
            actions = difference(*(torch.from_numpy(x) for x in (states[:-1], states[1:]))).numpy()
        labels = recording.metadata
        task = labels.get("instruction") or labels.get("task") or labels.get("object") or "move"
        columns = {STATE: states, "action": np.concatenate([actions, np.zeros((1, 7))])}
        columns |= {EXTRINSICS + camera: x for camera, x in recording.extrinsics.items()}
        for name, values in (
            ("next.reward", recording.rewards),
            ("next.success", recording.success),
        ):
            if values is not None:
                columns[name] = np.append(values, values[-1:])
        columns["timestamp"] = np.arange(steps) / self.fps
        columns["frame_index"] = np.arange(steps)
        columns["episode_index"] = np.full(steps, number)
        columns["index"] = first + np.arange(steps)
        columns["task_index"] = np.full(steps, self.tasks.setdefault(str(task), len(self.tasks)))
        return {name: columns[name] for name in self.features if name in columns}, str(task)

    def _video(self, name: str, camera: str) -> Path:
        """Return the file of an episode's view."""
        return next(path for path in self.source.files(name) if path.name == f"{camera}.mp4")

    def _measure(self, name: str, columns: Mapping[str, np.ndarray], row: dict[str, Any]) -> None:
        """Take the statistics of an episode; pictures are in [0, 1], one number per colour."""
        found = {key: statistics(values) for key, values in columns.items()}
        steps = np.linspace(0, row["length"] - 1, SAMPLED_FRAMES).round().astype(int)
        for camera in self.videos:
            frames = self.source.frames(name, camera, steps.tolist()) / 255.0
            of_pixels = statistics(frames.reshape(-1, 3))
            found[PICTURES + camera] = {
                key: np.array([len(frames)]) if key == "count" else value[:, None, None]
                for key, value in of_pixels.items()
            }
        row |= {
            f"stats/{feature}/{key}": value.tolist()
            for feature, values in found.items()
            for key, value in values.items()
        }
        file = row["episode_index"] // EPISODES_PER_FILE
        row |= {"meta/episodes/chunk_index": file // FILES_PER_CHUNK}
        row |= {"meta/episodes/file_index": file % FILES_PER_CHUNK}
        self.rows.append(row)
        self.measured.append(found)

    def _write_metadata(self, frames: int) -> None:
        import pyarrow as pa

        meta = self.folder / "meta"
        for first in range(0, len(self.rows), EPISODES_PER_FILE):
            table = pa.Table.from_pylist(self.rows[first : first + EPISODES_PER_FILE])
            write_tables(
                [table], meta / "episodes" / f"{_place(first // EPISODES_PER_FILE)}.parquet"
            )
        write_tables([tasks_table(self.tasks)], meta / "tasks.parquet")
        info = {
            "codebase_version": "v3.0",
            "robot_type": "franka",
            "total_episodes": len(self.ids),
            "total_frames": frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.ids)}"},
            "data_path": f"data/{PLACE}.parquet",
            "video_path": f"videos/{{video_key}}/{PLACE}.mp4",
            "features": self.features,
        }
        own = {
            "index": dict(self.index),
            "ids": dict(enumerate(self.ids)),
            "episodes": self.labels,
        }
        of_all = {
            feature: {
                key: value.tolist()
                for key, value in combined_statistics([x[feature] for x in self.measured]).items()
            }
            for feature in self.measured[0]
        }
        for name, content in ((INFO, info), (OWN, own), ("meta/stats.json", of_all)):
            with atomic_write(self.folder / name) as path:
                path.write_text(json.dumps(content, indent=4) + "\n")


class _Videos:
    """Joins the videos of a camera: packets are copied, nothing is decoded."""

    def __init__(self, folder: Path, feature: str, frames_per_s: int) -> None:
        self.folder, self.feature, self.fps = folder / "videos" / feature, feature, frames_per_s
        self.file, self.frames, self.bytes = -1, 0, 0
        self.container: Any = None
        self.stream: Any = None
        self.header, self.size = b"", (0, 0)

    def append(self, path: Path, frames: int) -> dict[str, Any]:
        """Add an episode's video and return where it is, as columns of `meta/episodes`."""
        with av.open(str(path)) as source:
            stream = source.streams.video[0]
            context = stream.codec_context
            size, header = (context.width, context.height), context.extradata or b""
            if self.file < 0:
                self.size = size
            if size != self.size:
                raise ValueError(
                    f"{path} has {size[0]} x {size[1]} pixels, others {self.size[0]} x "
                    f"{self.size[1]}: LeRobot's pictures of a camera are of one size"
                )
            if self.file < 0 or self.bytes >= VIDEO_MB << 20 or header != self.header:
                self._next_file(stream)  # a file has one header
                self.header = header
            first = self.frames
            for packet in source.demux(stream):
                if not packet.size:
                    continue  # the end
                if packet.pts != packet.dts:
                    raise ValueError(f"{path} has reordered frames: it was not written by us")
                self.bytes += packet.size
                packet.stream, packet.time_base = self.stream, Fraction(1, self.fps)
                packet.pts = packet.dts = self.frames
                packet.duration = 1
                self.container.mux(packet)
                self.frames += 1
        if self.frames - first != frames:
            raise ValueError(f"{path} has {self.frames - first} frames, the episode {frames}")
        return {
            f"videos/{self.feature}/chunk_index": self.file // FILES_PER_CHUNK,
            f"videos/{self.feature}/file_index": self.file % FILES_PER_CHUNK,
            f"videos/{self.feature}/from_timestamp": first / self.fps,
            f"videos/{self.feature}/to_timestamp": self.frames / self.fps,
        }

    def close(self) -> None:
        if self.container is not None:
            self.container.close()

    def _next_file(self, like: Any) -> None:
        self.close()
        self.file, self.frames, self.bytes = self.file + 1, 0, 0
        path = self.folder / f"{_place(self.file)}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(path), "w", format="mp4")
        self.stream = self.container.add_stream_from_template(like)


def _place(number: int) -> str:
    return PLACE.format(chunk_index=number // FILES_PER_CHUNK, file_index=number % FILES_PER_CHUNK)


def _feature(kind: str, size: int, names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": kind, "shape": [size], "names": names}
