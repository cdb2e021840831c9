"""One recorded episode on disk, in the layout of raw DROID.

A folder per episode::

    metadata_<id>.json            left_mp4_path, right_mp4_path, wrist_mp4_path, step_s, ...
    trajectory.h5                 observation/robot_state/cartesian_position  (T, 6)
                                  observation/robot_state/gripper_position    (T,)
                                  observation/camera_extrinsics/<serial>_left (T, 6)
                                  observation/timestamp/control/step_start    (T,) ms
                                  action, reward, success, simulator_state, timestamp_s
    recordings/MP4/<serial>.mp4   H.264, short groups of pictures, no B-frames

The first four data sets and the videos are DROID's; the last line of data sets is our own, with
`timestamp_s` in the place of DROID's time. Which of these an episode has is told by `recorded` in
the metadata that `jepa-gym` writes, so that one reader serves both. In our recordings the serial of
a camera is its name.

Extrinsics are the camera's pose in the robot's base frame with OpenCV's axes, as in DROID: x to the
right of the picture, y down, z into the scene.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from av.error import FFmpegError

from jepa_gym.files import parse_json
from jepa_gym.states import unit_problem
from jepa_gym.training.data.videos import read_video, write_video

WRITER = "jepa-gym"
DROID_CAMERAS = ("left", "right", "wrist")
OWN_FIELDS = {
    "action": "actions",
    "reward": "rewards",
    "success": "success",
    "simulator_state": "sim_state",
    "timestamp_s": "timestamps_s",
}
"""Data set of our own -> field of `Episode`."""
DROID_TIME = "observation/timestamp/control/step_start"
"""DROID's physical time of each frame, milliseconds."""
MAX_NUMBER = 1e6


class CorruptEpisodeError(ValueError):
    """An episode that cannot be used; names the folder and the reason."""

    def __init__(self, folder: Path, reason: str) -> None:
        """Store the folder and the reason.

        Args:
            folder: The episode's folder.
            reason: What is wrong with it.
        """
        super().__init__(f"corrupt episode {folder}: {reason}")
        self.folder = folder
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        """Survive the way back from a worker process."""
        return type(self), (self.folder, self.reason)


@dataclass
class Episode:
    """One episode of T frames and T - 1 actions, in the units of the project's contract."""

    frames: dict[str, np.ndarray]
    """Camera name -> (T, Y, X, 3) uint8."""
    states: np.ndarray
    """(T, 7): metres, radians (extrinsic xyz), closedness."""
    extrinsics: dict[str, np.ndarray] = field(default_factory=dict)
    """Camera name -> (T, 6): position in metres and extrinsic-xyz angles in the base frame, with
    OpenCV's axes."""
    actions: np.ndarray | None = None
    """(T - 1, 7), as commanded."""
    rewards: np.ndarray | None = None
    """(T - 1,), the reward after each action."""
    success: np.ndarray | None = None
    """(T - 1,) bool, success after each action."""
    sim_state: np.ndarray | None = None
    """(T, n) float64, the simulator's full state."""
    timestamps_s: np.ndarray | None = None
    """(T,), physical time of each frame."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """JSON-compatible; `step_s` is required for writing."""


def write_episode(folder: str | Path, episode: Episode) -> Path:
    """Write an episode whole or not at all (temporary folder, then rename).

    Args:
        folder: Target folder; its name becomes the episode's id. Must not exist.
        episode: The episode. Frames and states are required, everything else may be left out.

    Returns:
        The folder.

    Raises:
        FileExistsError: If `folder` exists.
        ValueError: If lengths, shapes or values are wrong.
        OSError: If the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"episode folder {folder} exists; episodes are never overwritten")
    reason = problem(episode)
    if reason is None and not float(episode.metadata.get("step_s", 0)) > 0:
        reason = "the metadata lack a positive `step_s` (seconds between frames)"
    if reason:
        raise ValueError(f"cannot write episode {folder.name}: {reason}")
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _full_disk_named(folder):
            _write_files(temporary, folder.name, episode)
        try:
            temporary.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FileExistsError(f"episode folder {folder} was written meanwhile") from error
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _write_files(folder: Path, name: str, episode: Episode) -> None:
    (folder / "recordings" / "MP4").mkdir(parents=True)
    for camera, frames in episode.frames.items():
        path = folder / "recordings" / "MP4" / f"{camera}.mp4"
        write_video(path, frames, float(episode.metadata["step_s"]))
    _write_trajectory(folder / "trajectory.h5", episode)
    metadata = dict(episode.metadata)
    metadata |= {"writer": WRITER, "id": name, "trajectory_length": len(episode.states)}
    metadata["recorded"] = [
        key for key, attribute in OWN_FIELDS.items() if getattr(episode, attribute) is not None
    ]
    for camera in {**dict.fromkeys(DROID_CAMERAS), **episode.frames}:
        path = f"recordings/MP4/{camera}.mp4" if camera in episode.frames else None
        metadata[f"{camera}_mp4_path"] = path
    text = json.dumps(metadata, indent=1, sort_keys=True)
    (folder / f"metadata_{name}.json").write_text(text + "\n")


@contextmanager
def _full_disk_named(folder: Path) -> Iterator[None]:
    """Say that the disk is full, and where, in whatever words a library reports it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC or f"errno = {errno.ENOSPC}," in str(error):
            text = os.strerror(errno.ENOSPC)
            raise OSError(errno.ENOSPC, text, str(folder)) from error
        raise


def read_episode(folder: str | Path, cameras: tuple[str, ...] = ("left", "wrist")) -> Episode:
    """Read and check an episode; real DROID folders and our own.

    Args:
        folder: The episode's folder.
        cameras: Views to decode.

    Returns:
        The episode, with float64 numbers and uint8 frames. What was not recorded is None.

    Raises:
        CorruptEpisodeError: If a video is truncated, a key is missing, lengths differ, or numbers
            are not finite or not in the units of the contract.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    frames = {}
    for camera in cameras:
        path = video_path(folder, metadata, camera)
        with decoding(folder, path):
            frames[camera] = read_video(path)
    numbers = read_trajectory(folder, metadata)
    episode = Episode(frames=frames, metadata=metadata, **numbers)
    reason = problem(episode)
    if reason:
        raise CorruptEpisodeError(folder, reason)
    return episode


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the one `metadata_*.json` of an episode folder.

    Args:
        folder: The episode's folder.

    Returns:
        The metadata.

    Raises:
        CorruptEpisodeError: If there is not exactly one such file, or it is not a JSON object.
    """
    paths = sorted(folder.glob("metadata_*.json"))
    if len(paths) != 1:
        raise CorruptEpisodeError(folder, f"expected one metadata_*.json, found {len(paths)}")
    try:
        metadata = parse_json(paths[0].read_text())
    except ValueError as error:
        raise CorruptEpisodeError(folder, f"{paths[0].name} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise CorruptEpisodeError(folder, f"{paths[0].name} does not hold a JSON object")
    return metadata


def video_path(folder: Path, metadata: dict[str, Any], camera: str) -> Path:
    """Return the video of a camera; DROID's metadata hold paths of the laboratory that recorded it.

    Args:
        folder: The episode's folder.
        metadata: Its metadata.
        camera: "left", "right", "wrist" or another name.

    Raises:
        CorruptEpisodeError: If the metadata do not name the camera's video.
    """
    name = metadata.get(f"{camera}_mp4_path")
    if not isinstance(name, str) or not name:
        raise CorruptEpisodeError(folder, f"the metadata name no `{camera}_mp4_path`")
    return folder / "recordings" / "MP4" / Path(name).name


@contextmanager
def decoding(folder: Path, path: Path) -> Iterator[None]:
    """Name the episode's folder and the video where decoding fails in the block.

    Raises:
        CorruptEpisodeError: If anything is wrong with the video.
    """
    try:
        yield
    except (FFmpegError, ValueError, IndexError, OSError) as error:
        name = path.relative_to(folder)
        raise CorruptEpisodeError(folder, f"cannot decode {name} ({error})") from error


def _write_trajectory(path: Path, episode: Episode) -> None:
    with h5py.File(path, "w") as file:
        robot = file.create_group("observation/robot_state")
        robot["cartesian_position"] = np.asarray(episode.states[:, :6], np.float64)
        robot["gripper_position"] = np.asarray(episode.states[:, 6], np.float64)
        for camera, poses in episode.extrinsics.items():
            file[f"observation/camera_extrinsics/{camera}_left"] = np.asarray(poses, np.float64)
        for key, attribute in OWN_FIELDS.items():
            value = getattr(episode, attribute)
            if value is not None:
                file[key] = np.asarray(value, bool if key == "success" else np.float64)


def read_trajectory(folder: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Read the numbers of an episode, without its videos.

    Args:
        folder: The episode's folder.
        metadata: Its metadata.

    Returns:
        The fields of `Episode` but for frames and metadata.

    Raises:
        CorruptEpisodeError: If the file is damaged or lacks something.
    """
    robot = "observation/robot_state"
    recorded = metadata.get("recorded", OWN_FIELDS) if metadata.get("writer") == WRITER else ()
    ending = "_mp4_path"
    serials = {
        key.removesuffix(ending): Path(name).stem
        for key, name in metadata.items()
        if key.endswith(ending) and isinstance(name, str)
    }
    try:
        with h5py.File(folder / "trajectory.h5", "r") as file:
            pose = np.asarray(file[f"{robot}/cartesian_position"], np.float64)
            gripper = np.asarray(file[f"{robot}/gripper_position"], np.float64)
            keys = {c: f"observation/camera_extrinsics/{x}_left" for c, x in serials.items()}
            extrinsics = {c: np.asarray(file[key]) for c, key in keys.items() if key in file}
            own = {OWN_FIELDS[key]: np.asarray(file[key]) for key in OWN_FIELDS if key in recorded}
            if "timestamps_s" not in own and DROID_TIME in file:
                milliseconds = np.asarray(file[DROID_TIME], np.float64)
                own["timestamps_s"] = (milliseconds - milliseconds[:1]) / 1000
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CorruptEpisodeError(folder, f"cannot read trajectory.h5 ({error})") from error
    if pose.ndim != 2 or gripper.shape != pose.shape[:1]:
        shapes = f"cartesian_position {pose.shape}, gripper_position {gripper.shape}"
        raise CorruptEpisodeError(folder, f"expected (T, 6) and (T,), got {shapes}")
    states = np.concatenate([pose, gripper[:, None]], axis=1)  # (T, 6), (T, 1) -> (T, 7)
    return {"states": states, "extrinsics": extrinsics} | own


def problem(episode: Episode) -> str | None:
    """Say what is wrong with an episode's arrays, or None."""
    steps = len(episode.states)
    if steps < 2:
        return f"needs at least 2 frames, has {steps}"
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {"states": (episode.states, (steps, 7))}
    for camera, poses in episode.extrinsics.items():
        expected[f"extrinsics of {camera}"] = (poses, (steps, 6))
    shapes = {"actions": (steps - 1, 7), "rewards": (steps - 1,), "success": (steps - 1,)}
    size = 0 if episode.sim_state is None else episode.sim_state.shape[-1]
    shapes |= {"sim_state": (steps, size), "timestamps_s": (steps,)}
    for name, shape in shapes.items():
        if getattr(episode, name) is not None:
            expected[name] = (getattr(episode, name), shape)
    for name, (value, shape) in expected.items():
        array = np.asarray(value)
        if array.shape != shape:
            return f"{name} must have shape {shape}, has {array.shape}"
        if not np.isfinite(array.astype(np.float64)).all():
            return f"{name} holds NaN or infinite numbers"
        if np.abs(array.astype(np.float64)).max(initial=0) > MAX_NUMBER:
            return f"{name} holds numbers beyond {MAX_NUMBER:g}"
    if episode.timestamps_s is not None and not (np.diff(episode.timestamps_s) > 0).all():
        return "timestamps_s do not grow"
    return unit_problem(episode.states) or _frame_problem(episode.frames, steps)


def _frame_problem(frames: dict[str, np.ndarray], steps: int) -> str | None:
    for camera, pictures in frames.items():
        if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
            return f"frames of {camera} must be (T, Y, X, 3) uint8, are {pictures.shape}"
        if len(pictures) != steps:
            return f"{camera} has {len(pictures)} frames, the trajectory {steps} rows"
    return None
