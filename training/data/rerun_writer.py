"""Episodes as Rerun's recordings, one .rrd file each: pictures, hand and numbers over time.

Open one with `rerun FILE` or on rerun.io's viewer. `jepa-gym convert DATA OUTPUT --to rerun`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from jepa_gym.files import atomic_write
from jepa_gym.logs import progress_bar
from jepa_gym.training.data.sources import Source

APPLICATION = "jepa-gym"
AXES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
"""Names of the numbers of states (m, rad, closedness) and actions (their changes)."""
JPEG_QUALITY = 90
TIMELINE = "time"


def write_rerun(source: Source, folder: Path) -> list[Path]:
    """Write every episode of a source that has no file yet.

    Args:
        source: Recorded data of any format.
        folder: Created when missing.

    Returns:
        The files, in the order of the ids.

    Raises:
        ImportError: If the extra `rerun` is not installed.
        CorruptEpisodeError: If an episode cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in progress_bar(source.ids(), "writing episodes", unit="episode"):
        path = folder / f"{name.replace('/', '-')}.rrd"
        if not path.exists():
            with atomic_write(path) as temporary:
                write_episode_file(source, name, temporary)
        files.append(path)
    return files


def write_episode_file(source: Source, name: str, path: Path) -> None:
    """Write one episode.

    Args:
        source: Has it.
        name: Its id.
        path: The .rrd file.

    Raises:
        ImportError: If the extra `rerun` is not installed.
        CorruptEpisodeError: If the episode cannot be read.
    """
    rerun = _rerun()
    recording = source.recording(name)
    stream = rerun.RecordingStream(APPLICATION, recording_id=name)
    stream.save(str(path))
    times = recording.times_s - recording.times_s[0]
    if recording.states is not None:
        place = recording.states[:, :3]
        stream.log("world", rerun.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        stream.log("world/path", rerun.LineStrips3D([place]), static=True)
    for row, time_s in enumerate(times):
        stream.set_time(TIMELINE, duration=float(time_s))
        if recording.states is not None:
            state = recording.states[row]
            turn = Rotation.from_euler("xyz", state[3:6]).as_matrix()
            stream.log("world/hand", rerun.Transform3D(translation=state[:3], mat3x3=turn))
            _numbers(rerun, stream, "state", state)
        if row == len(times) - 1:
            break  # nothing follows the last frame
        if recording.actions is not None:
            _numbers(rerun, stream, "action", recording.actions[row])
        for kind, values in (("reward", recording.rewards), ("success", recording.success)):
            if values is not None:
                stream.log(kind, rerun.Scalars(float(values[row])))
    for camera in source.cameras:
        frames = source.frames(name, camera, range(len(times)))
        for time_s, frame in zip(times, frames, strict=True):
            stream.set_time(TIMELINE, duration=float(time_s))
            picture = rerun.Image(np.ascontiguousarray(frame)).compress(jpeg_quality=JPEG_QUALITY)
            stream.log(f"camera/{camera}", picture)
    stream.flush(blocking=True)
    stream.disconnect()


def _numbers(rerun: Any, stream: Any, what: str, values: np.ndarray) -> None:
    for axis, value in zip(AXES, values, strict=True):
        stream.log(f"{what}/{axis}", rerun.Scalars(float(value)))


def _rerun() -> Any:
    try:
        import rerun  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError('--to rerun needs Rerun: pip install "jepa-gym[rerun]"') from error
    return rerun
