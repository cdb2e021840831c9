"""Videos: H.264 files with short groups of pictures, read by frame number."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

VIDEO_OPTIONS = {
    "crf": "18", "g": "10", "bf": "0", "preset": "veryfast", "x264-params": "mbtree=0",
}  # fmt: skip
"""Without macroblock trees, whose decisions differ from process to process: equal frames shall give
equal files, else a collection that was interrupted would differ from one that was not."""


def write_video(path: Path, frames: np.ndarray, step_s: float) -> None:
    """Encode frames as H.264 (crf 18, groups of 10, no B-frames, yuv420p).

    Args:
        path: The .mp4 file.
        frames: (T, Y, X, 3) uint8 with even Y and X.
        step_s: Seconds between frames.
    """
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(1 / step_s).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options=VIDEO_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video(path: Path) -> np.ndarray:
    """Decode every frame of a video.

    Args:
        path: The video file.

    Returns:
        (T, Y, X, 3) uint8.

    Raises:
        av.error.FFmpegError: If the file is missing, truncated or not a video.
        ValueError: If the file holds no frame.
    """
    with av.open(str(path)) as container:
        _video_stream(container, path).codec_context.thread_count = 1
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if not images:
        raise ValueError(f"{path} holds no frame")
    return np.stack(images)


def frame_times(path: Path) -> np.ndarray:
    """List when the frames of a video are shown, growing, without decoding: the packets tell.

    Args:
        path: The video file.

    Returns:
        (T,) float64 seconds.

    Raises:
        av.error.FFmpegError: If the file is missing, truncated or not a video.
        ValueError: If packets have no time.
    """
    ticks, _, tick_s = _packets(path)
    return np.array([float(tick * tick_s) for tick in ticks])


def read_frames(path: Path, rows: Sequence[int]) -> np.ndarray:
    """Decode some frames of a video, from the nearest key frame before each.

    Args:
        path: The video file.
        rows: Indices of frames, not decreasing.

    Returns:
        (rows, Y, X, 3) uint8, to the bit those of `read_video`.

    Raises:
        av.error.FFmpegError: If the file is missing, truncated or not a video.
        IndexError: If there is no such frame.
        ValueError: If a frame cannot be decoded.
    """
    times, keys, _ = _packets(path)
    if rows[0] < 0 or rows[-1] >= len(times):
        raise IndexError(f"it has {len(times)} frames, {rows[0]} to {rows[-1]} were asked for")
    found: dict[int, np.ndarray] = {}
    with av.open(str(path)) as container:
        stream = _video_stream(container, path)
        stream.codec_context.thread_count = 1
        decoded, reached = None, -1
        for time in sorted({times[row] for row in rows}):
            key = keys[bisect_right(keys, time) - 1]
            if decoded is None or key > reached:
                container.seek(key, stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                reached = frame.pts if frame.pts is not None else reached
                if reached >= time:
                    break
            else:
                raise ValueError("it ends before its last frame")
            if reached != time:
                raise ValueError("a frame is damaged")
            found[time] = frame.to_ndarray(format="rgb24")
    return np.stack([found[times[row]] for row in rows])


def _packets(path: Path) -> tuple[list[int], list[int], Fraction]:
    """Return the times of all frames and those of key frames, both growing, and a tick's seconds.

    A file of many episodes is not walked through anew for every clip, as long as it is unchanged.
    """
    stat = path.stat()
    return _read_packets(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _read_packets(path: Path, size: int, changed_ns: int) -> tuple[list[int], list[int], Fraction]:
    times, keys = [], []
    with av.open(str(path)) as container:
        stream = _video_stream(container, path)
        for packet in container.demux(stream):
            if not packet.size:
                continue  # the end
            if packet.pts is None:
                raise ValueError("its frames have no times")
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
        tick_s = stream.time_base
    if not keys or len(set(times)) != len(times):
        raise ValueError(f"{path} holds no frame" if not times else "its frames' times are damaged")
    return sorted(times), sorted(keys), tick_s or Fraction(1)


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = container.streams.video
    if not streams or streams[0].codec_context is None:  # a damaged header names no known codec
        raise ValueError(f"{path} holds no video that can be decoded")
    return streams[0]
