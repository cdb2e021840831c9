"""Videos: H.264 files with short groups of pictures, read by frame number."""

from __future__ import annotations

from fractions import Fraction
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


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = container.streams.video
    if not streams or streams[0].codec_context is None:  # a damaged header names no known codec
        raise ValueError(f"{path} holds no video that can be decoded")
    return streams[0]
