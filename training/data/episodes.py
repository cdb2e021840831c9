"""One recorded episode on disk, in the layout of raw DROID.

A folder per episode::

    metadata_<id>.json            left_mp4_path, right_mp4_path, wrist_mp4_path, step_s, ...
    trajectory.h5                 observation/robot_state/cartesian_position  (T, 6)
                                  observation/robot_state/gripper_position    (T,)
                                  observation/camera_extrinsics/<serial>_left (T, 6)
                                  action, reward, success, simulator_state, timestamp_s
    recordings/MP4/<serial>.mp4   H.264, short groups of pictures, no B-frames

The first three data sets and the videos are DROID's; the last line of data sets is our own and is
required only where the metadata name `jepa-gym` as the writer, so one reader serves both. In our
recordings the serial of a camera is its name.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np

WRITER = "jepa-gym"
DROID_CAMERAS = ("left", "right", "wrist")
OWN_KEYS = ("action", "reward", "success", "simulator_state", "timestamp_s")
VIDEO_OPTIONS = {"crf": "18", "g": "10", "bf": "0", "preset": "veryfast"}


class CorruptEpisodeError(Exception):
    """An episode that cannot be used; names the folder and the reason."""

    def __init__(self, folder: Path, reason: str) -> None:
        """Store the folder and the reason.

        Args:
            folder: the episode's folder.
            reason: what is wrong with it.
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
    extrinsics: dict[str, np.ndarray]
    """Camera name -> (T, 6): position in metres and extrinsic-xyz angles in the base frame."""
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
        folder: target folder; its name becomes the episode's id. Must not exist.
        episode: a complete episode, with our own fields set.

    Returns:
        The folder.

    Raises:
        FileExistsError: `folder` exists.
        ValueError: lengths, shapes or values are wrong.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"episode folder {folder} exists; episodes are never overwritten")
    reason = _problem(episode, own=True)
    if reason is None and "step_s" not in episode.metadata:
        reason = "metadata lack `step_s` (seconds between frames)"
    if reason:
        raise ValueError(f"cannot write episode {folder.name}: {reason}")
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "recordings" / "MP4").mkdir(parents=True)
        for camera, frames in episode.frames.items():
            path = temporary / "recordings" / "MP4" / f"{camera}.mp4"
            write_video(path, frames, float(episode.metadata["step_s"]))
        _write_trajectory(temporary / "trajectory.h5", episode)
        metadata = dict(episode.metadata)
        metadata |= {"writer": WRITER, "id": folder.name, "trajectory_length": len(episode.states)}
        for camera in {**dict.fromkeys(DROID_CAMERAS), **episode.frames}:
            path = f"recordings/MP4/{camera}.mp4" if camera in episode.frames else None
            metadata[f"{camera}_mp4_path"] = path
        text = json.dumps(metadata, indent=1, sort_keys=True)
        (temporary / f"metadata_{folder.name}.json").write_text(text + "\n")
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def read_episode(folder: str | Path, cameras: tuple[str, ...] = ("left", "wrist")) -> Episode:
    """Read and check an episode; real DROID folders and our own.

    Args:
        folder: the episode's folder.
        cameras: views to decode.

    Returns:
        The episode, with float64 numbers and uint8 frames. Fields that only our own recordings
        have are None for others.

    Raises:
        CorruptEpisodeError: truncated video, missing key, wrong lengths, non-finite numbers.
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    own = metadata.get("writer") == WRITER
    frames = {}
    for camera in cameras:
        name = metadata.get(f"{camera}_mp4_path")
        if not name:
            raise CorruptEpisodeError(folder, f"the metadata name no `{camera}_mp4_path`")
        frames[camera] = _decode(folder, folder / "recordings" / "MP4" / Path(name).name)
    serials = {camera: Path(metadata[f"{camera}_mp4_path"]).stem for camera in cameras}
    numbers = _read_trajectory(folder, serials, own)
    episode = Episode(frames=frames, metadata=metadata, **numbers)
    reason = _problem(episode, own)
    if reason:
        raise CorruptEpisodeError(folder, reason)
    return episode


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the one `metadata_*.json` of an episode folder.

    Args:
        folder: the episode's folder.

    Returns:
        The metadata.

    Raises:
        CorruptEpisodeError: there is not exactly one such file, or it is not a JSON object.
    """
    paths = sorted(folder.glob("metadata_*.json"))
    if len(paths) != 1:
        raise CorruptEpisodeError(folder, f"expected one metadata_*.json, found {len(paths)}")
    try:
        metadata = json.loads(paths[0].read_text())
    except ValueError as error:
        raise CorruptEpisodeError(folder, f"{paths[0].name} is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise CorruptEpisodeError(folder, f"{paths[0].name} does not hold a JSON object")
    return metadata


def write_video(path: Path, frames: np.ndarray, step_s: float) -> None:
    """Encode frames as H.264 (crf 18, groups of 10, no B-frames, yuv420p).

    Args:
        path: the .mp4 file.
        frames: (T, Y, X, 3) uint8 with even Y and X.
        step_s: seconds between frames.
    """
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(1 / step_s).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = VIDEO_OPTIONS
        stream.codec_context.thread_count = 1
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video(path: Path) -> np.ndarray:
    """Decode every frame of a video.

    Args:
        path: the video file.

    Returns:
        (T, Y, X, 3) uint8.

    Raises:
        av.FFmpegError: the file is missing, truncated or not a video.
        ValueError: the file holds no frame.
    """
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if not images:
        raise ValueError(f"{path} holds no frame")
    return np.stack(images)


def _decode(folder: Path, path: Path) -> np.ndarray:
    try:
        return read_video(path)
    except (av.FFmpegError, ValueError, IndexError, OSError) as error:
        name = path.relative_to(folder)
        raise CorruptEpisodeError(folder, f"cannot decode {name} ({error})") from error


def _write_trajectory(path: Path, episode: Episode) -> None:
    own = dict(
        zip(
            OWN_KEYS,
            (
                episode.actions,
                episode.rewards,
                episode.success,
                episode.sim_state,
                episode.timestamps_s,
            ),
            strict=True,
        )
    )
    with h5py.File(path, "w") as file:
        robot = file.create_group("observation/robot_state")
        robot["cartesian_position"] = np.asarray(episode.states[:, :6], np.float64)
        robot["gripper_position"] = np.asarray(episode.states[:, 6], np.float64)
        for camera, poses in episode.extrinsics.items():
            file[f"observation/camera_extrinsics/{camera}_left"] = np.asarray(poses, np.float64)
        for key, value in own.items():
            file[key] = np.asarray(value, bool if key == "success" else np.float64)


def _read_trajectory(folder: Path, serials: dict[str, str], own: bool) -> dict[str, Any]:
    robot = "observation/robot_state"
    try:
        with h5py.File(folder / "trajectory.h5", "r") as file:
            pose = np.asarray(file[f"{robot}/cartesian_position"], np.float64)
            gripper = np.asarray(file[f"{robot}/gripper_position"], np.float64)
            extrinsics = {
                camera: np.asarray(file[f"observation/camera_extrinsics/{serial}_left"], np.float64)
                for camera, serial in serials.items()
            }
            values = [np.asarray(file[key]) for key in OWN_KEYS] if own else [None] * len(OWN_KEYS)
    except (OSError, KeyError) as error:
        raise CorruptEpisodeError(folder, f"cannot read trajectory.h5 ({error})") from error
    if pose.ndim != 2 or gripper.shape != pose.shape[:1]:
        shapes = f"cartesian_position {pose.shape}, gripper_position {gripper.shape}"
        raise CorruptEpisodeError(folder, f"expected (T, 6) and (T,), got {shapes}")
    names = ("actions", "rewards", "success", "sim_state", "timestamps_s")
    states = np.concatenate([pose, gripper[:, None]], axis=1)  # (T, 6), (T, 1) -> (T, 7)
    return dict(zip(names, values, strict=True)) | {"states": states, "extrinsics": extrinsics}


def _problem(episode: Episode, own: bool) -> str | None:
    """Say what is wrong with an episode's arrays, or None."""
    steps = len(episode.states)
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {"states": (episode.states, (steps, 7))}
    for camera, poses in episode.extrinsics.items():
        expected[f"extrinsics of {camera}"] = (poses, (steps, 6))
    if own:
        expected |= {
            "actions": (episode.actions, (steps - 1, 7)),
            "rewards": (episode.rewards, (steps - 1,)),
            "success": (episode.success, (steps - 1,)),
            "timestamps_s": (episode.timestamps_s, (steps,)),
            "sim_state": (episode.sim_state, (steps, -1)),
        }
    if steps < 2:
        return f"needs at least 2 frames, has {steps}"
    if set(episode.frames) - set(episode.extrinsics):
        return f"no extrinsics for {sorted(set(episode.frames) - set(episode.extrinsics))}"
    for name, (value, shape) in expected.items():
        if value is None:
            return f"{name} missing"
        array = np.asarray(value)
        if name == "sim_state" and array.ndim == 2:
            shape = (steps, array.shape[1])
        if array.shape != shape:
            return f"{name} must have shape {shape}, has {array.shape}"
        if not np.isfinite(array.astype(np.float64)).all():
            return f"{name} holds NaN or infinite numbers"
    for camera, frames in episode.frames.items():
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            return f"frames of {camera} must be (T, Y, X, 3) uint8, are {frames.shape}"
        if len(frames) != steps:
            return f"{camera} has {len(frames)} frames, the trajectory {steps} rows"
    return None
