"""Datasets of LeRobot, format v3: Parquet files of numbers, videos of many episodes each.

::

    meta/info.json                            fps, features, templates of the paths below
    meta/episodes/chunk-000/file-000.parquet  which rows and seconds of which files an episode is
    meta/jepa-gym.json                        only in what `jepa-gym convert --to lerobot` wrote
    data/chunk-000/file-000.parquet           one row per frame
    videos/<feature>/chunk-000/file-000.mp4   the frames of several episodes, one after the other

LeRobot prescribes no meaning of a state. These are understood, whatever the order of the names:

- `observation.state` with the names x y z roll pitch yaw gripper, or x y z qx qy qz qw gripper: m,
  rad, quaternion, closedness (0 open, 1 closed), in the robot's base frame;
- `observation.state.cartesian_position` and `observation.state.gripper_position`, the names of
  LeRobot's port of DROID.

With other states (joint angles, say) an episode has none: masked pre-training reads it, everything
else needs a converter as in docs/data.md. Needs the extra `lerobot` (pyarrow).

Reference: the documentation page "LeRobotDataset v3.0" of https://github.com/huggingface/lerobot.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from av.error import FFmpegError
from PIL import Image

from jepa_gym.files import parse_json
from jepa_gym.training.data.episodes import CorruptEpisodeError, Episode, problem
from jepa_gym.training.data.sources.base import Recording, Source
from jepa_gym.training.data.units import euler_of_quaternions
from jepa_gym.training.data.videos import frame_times, read_frames

INFO, OWN = "meta/info.json", "meta/jepa-gym.json"
PICTURES = "observation.images."
"""How the names of cameras begin."""
EXTRINSICS = "camera_extrinsics."
STATE = "observation.state"
EULER_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
QUATERNION_NAMES = ("x", "y", "z", "qx", "qy", "qz", "qw", "gripper")
DROID_POSE, DROID_GRIPPER = f"{STATE}.cartesian_position", f"{STATE}.gripper_position"
TIME_TOLERANCE_S = 1e-4
"""How far LeRobot lets a frame be from its time; its times are float32."""


class LeRobotSource(Source):
    """The episodes of one dataset."""

    format = "lerobot"

    def __init__(self, path: Path) -> None:
        self.path = path
        parquet()  # says what to install
        try:
            self.info: dict[str, Any] = parse_json((path / INFO).read_text())
            version, self.fps = str(self.info["codebase_version"]), float(self.info["fps"])
            self.features: dict[str, dict[str, Any]] = dict(self.info["features"])
            kinds = {name: feature["dtype"] for name, feature in self.features.items()}
            if not self.fps > 0:
                raise ValueError(f"fps is {self.fps:g}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path / INFO} is damaged ({error})") from error
        if not version.startswith("v3."):
            raise ValueError(
                f"{path} has LeRobot's format {version}, v3 is read: convert it with LeRobot's "
                "`convert_dataset_v21_to_v30`"
            )
        self._features = {
            name.removeprefix(PICTURES): name
            for name, kind in kinds.items()
            if kind in ("video", "image")
        }
        self.cameras = tuple(self._features)
        own = path / OWN
        self.own: dict[str, Any] = parse_json(own.read_text()) if own.is_file() else {}
        self.state_convention: str | None = None
        if has_named_states(self.features):
            self.state_convention = self.own.get("index", {}).get("state_convention", "hand")
        elif {DROID_POSE, DROID_GRIPPER} <= kinds.keys():
            self.state_convention = "droid"

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Say whether a folder has a `meta/info.json`."""
        return (path / INFO).is_file()

    @cached_property
    def _episodes(self) -> dict[str, dict[str, Any]]:
        """Episode id -> its row of `meta/episodes`."""
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        rows: list[dict[str, Any]] = []
        try:
            for file in files:
                names = [x for x in parquet().read_schema(file).names if not x.startswith("stats/")]
                rows += parquet().read_table(file, columns=names).to_pylist()
            names = self.own.get("ids", {})
            return {
                names.get(str(row["episode_index"]), f"{row['episode_index']:06d}"): row
                for row in rows
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}/meta/episodes is damaged ({error})") from error

    def ids(self) -> list[str]:
        """Return the numbers of the episodes, or the ids that they had where they came from."""
        return sorted(self._episodes)

    def files(self, episode_id: str) -> list[Path]:
        """Return the files of numbers and pictures that an episode is in, with others."""
        videos = [
            self._file(episode_id, name)
            for name in self._features.values()
            if self.features[name]["dtype"] == "video"
        ]
        return [self._file(episode_id), *videos]

    def recording(self, episode_id: str) -> Recording:
        """Read the numbers of an episode; see `Source.recording`."""
        poses = {EXTRINSICS + camera: camera for camera in self.cameras}
        numbers = [STATE, DROID_POSE, DROID_GRIPPER, "action", "next.reward", "next.success"]
        known = [name for name in (*numbers, *poses) if name in self.features]
        table = self._table(episode_id, ["frame_index", "timestamp", *known])
        try:
            rows = {name: np.array(table[name].to_pylist()) for name in table.column_names}
            seconds = rows["frame_index"] / self.fps
            if np.abs(seconds - rows["timestamp"]).max(initial=0) > TIME_TOLERANCE_S:
                seconds = rows["timestamp"].astype(np.float64)
            states = read_states(self.features, rows)
            ours = bool(self.own)  # the meaning of anyone else's is unknown
            recording = Recording(
                times_s=seconds,
                states=states,
                actions=rows["action"][:-1].astype(np.float64) if ours else None,
                rewards=_without_last(rows.get("next.reward"), np.float64),
                success=_without_last(rows.get("next.success"), np.bool_),
                extrinsics={c: rows[x].astype(np.float64) for x, c in poses.items() if x in rows},
                metadata=self._metadata(episode_id),
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise CorruptEpisodeError(self.path / episode_id, f"is damaged ({error})") from error
        if states is not None:
            reason = problem(
                Episode(
                    {}, states, dict(recording.extrinsics), recording.actions, recording.rewards,
                    recording.success, timestamps_s=seconds,
                )
            )  # fmt: skip
            if reason:
                raise CorruptEpisodeError(self.path / episode_id, reason)
        return recording

    def _metadata(self, episode_id: str) -> dict[str, Any]:
        row = self._episodes[episode_id]
        known = dict(self.own.get("episodes", {}).get(episode_id, {}))
        return known | {"instruction": " ".join(row.get("tasks") or [])}

    def frame_count(self, episode_id: str, camera: str) -> int:
        """Count the frames; see `Source.frame_count`."""
        row, name = self._episodes[episode_id], self._feature(episode_id, camera)
        if self.features[name]["dtype"] == "image":
            return int(row["length"])
        path = self._file(episode_id, name)
        try:
            there = len(frame_times(path)) - self._first_frame(episode_id, name)
        except (FFmpegError, ValueError, OSError) as error:
            raise CorruptEpisodeError(self.path / episode_id, f"{path}: {error}") from error
        return max(0, min(int(row["length"]), there))

    def frames(self, episode_id: str, camera: str, rows: Sequence[int]) -> np.ndarray:
        """Decode some frames; see `Source.frames`."""
        name = self._feature(episode_id, camera)
        try:
            if self.features[name]["dtype"] == "image":
                column = self._table(episode_id, ["frame_index", name])[name]
                stored = column.take([int(row) for row in rows]).to_pylist()
                return np.stack([self._decode(picture) for picture in stored])
            first = self._first_frame(episode_id, name)
            return read_frames(self._file(episode_id, name), [first + row for row in rows])
        except (FFmpegError, ValueError, IndexError, OSError, TypeError) as error:
            raise CorruptEpisodeError(
                self.path / episode_id, f"cannot decode {camera} ({error})"
            ) from error

    def _decode(self, picture: Mapping[str, Any]) -> np.ndarray:
        """Decode a picture that stands in a Parquet file, or beside it."""
        content = picture["bytes"] or (self.path / picture["path"]).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))

    def _feature(self, episode_id: str, camera: str) -> str:
        if camera not in self._features:
            raise CorruptEpisodeError(self.path / episode_id, f"has no camera {camera}")
        return self._features[camera]

    def _first_frame(self, episode_id: str, feature: str) -> int:
        """Return which frame of its video an episode begins with."""
        return round(self._episodes[episode_id][f"videos/{feature}/from_timestamp"] * self.fps)

    def _file(self, episode_id: str, video: str | None = None) -> Path:
        """Return the file of an episode's numbers, or of one of its videos."""
        row, kind = self._episodes[episode_id], f"videos/{video}" if video else "data"
        template = str(self.info["video_path" if video else "data_path"])
        try:
            name = template.format(
                video_key=video,
                chunk_index=row[f"{kind}/chunk_index"],
                file_index=row[f"{kind}/file_index"],
            )
        except (KeyError, ValueError, IndexError) as error:
            raise CorruptEpisodeError(self.path / episode_id, f"no file of {kind}") from error
        return self.path / name

    def _table(self, episode_id: str, columns: list[str]) -> Any:
        """Read the rows of an episode, in the order of its frames."""
        row, path = self._episodes[episode_id], self._file(episode_id)
        chosen = [("episode_index", "=", row["episode_index"])]
        try:
            table = parquet().read_table(path, columns=columns, filters=chosen)
        except (OSError, ValueError, KeyError) as error:
            raise CorruptEpisodeError(self.path / episode_id, f"{path}: {error}") from error
        if len(table) != row["length"]:
            raise CorruptEpisodeError(
                self.path / episode_id, f"has {len(table)} rows, not {row['length']}, in {path}"
            )
        return table.sort_by("frame_index")


def parquet() -> Any:
    """Return the module `pyarrow.parquet`.

    Raises:
        ImportError: If pyarrow is not installed; the message says how to.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            f"LeRobot's files need pyarrow ({error}): pip install 'jepa-gym[lerobot]'"
        ) from error
    return pyarrow.parquet


def state_names(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of the numbers in `observation.state`, in small letters."""
    names = features.get(STATE, {}).get("names") or []
    if isinstance(names, Mapping):  # {"motors": [...]}
        names = [name for group in names.values() for name in group]
    return [str(name).lower() for name in names]


def has_named_states(features: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether the names of `observation.state` tell where the hand is."""
    return sorted(state_names(features)) in (sorted(EULER_NAMES), sorted(QUATERNION_NAMES))


def read_states(
    features: Mapping[str, Mapping[str, Any]], rows: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Make states of the columns of an episode.

    Args:
        features: Those of `meta/info.json`.
        rows: Column -> (T, ...).

    Returns:
        (T, 7) float64, or None where the names do not tell what the numbers are.

    Raises:
        ValueError: If quaternions have no length of 1.
    """
    names = state_names(features)
    if has_named_states(features):
        values = rows[STATE].astype(np.float64)
        order = EULER_NAMES if len(names) == len(EULER_NAMES) else QUATERNION_NAMES
        values = values[:, [names.index(name) for name in order]]
        if order is EULER_NAMES:
            return values
        return np.column_stack([values[:, :3], euler_of_quaternions(values[:, 3:7]), values[:, 7]])
    if DROID_POSE in rows and DROID_GRIPPER in rows:
        gripper = rows[DROID_GRIPPER].reshape(-1, 1)
        return np.concatenate([rows[DROID_POSE], gripper], axis=1).astype(np.float64)
    return None


def _without_last(values: np.ndarray | None, kind: type) -> np.ndarray | None:
    """Return all values but the last: after the last frame nothing happens."""
    return None if values is None else values[:-1].reshape(-1).astype(kind)
