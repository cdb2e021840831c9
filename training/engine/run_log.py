"""What a run tells: log.jsonl for programs, TensorBoard for the eye, a bar or lines for now.

log.jsonl holds only what follows from seed and step, so that an interrupted run's equals that of an
uninterrupted one to the bit; times and throughput are in TensorBoard.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from google.protobuf.json_format import ParseDict
from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from jepa_gym.logs import LINE_EVERY_S, progress_bar
from jepa_gym.training.engine.wandb_run import WandbRun

_LOG = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"
TENSORBOARD_NAME = "tensorboard"
_EVENT = vars(event_pb2)["Event"]  # made when the module is imported, which type checkers miss


class RunLog:
    """The log of a run; with TensorBoard beside it."""

    def __init__(
        self, folder: Path, length: int = 0, step: int = 0, web: WandbRun | None = None
    ) -> None:
        """Open the log, cut back to what it held at a checkpoint.

        Args:
            folder: The run's folder.
            length: Bytes of log.jsonl at the checkpoint.
            step: Step of the checkpoint; TensorBoard hides what is later.
            web: Shows the same as TensorBoard.

        Raises:
            ValueError: If log.jsonl is shorter than it was.
        """
        path = folder / LOG_NAME
        path.touch()
        if path.stat().st_size < length:
            raise ValueError(
                f"{path} is shorter ({path.stat().st_size} bytes) than at the checkpoint of step "
                f"{step} ({length}): put it back, or delete {folder / 'checkpoints'} to start again"
            )
        os.truncate(path, length)
        self._file = path.open("a")
        self._board, self._web = _EventFile(folder / TENSORBOARD_NAME, step), web

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add a line."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        self.show(step, values)

    def show(self, step: int, values: dict[str, float]) -> None:
        """Add values to TensorBoard alone."""
        self._board.write(step, values)
        if self._web is not None:
            self._web.write(step, values)

    def draw(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Add pictures (Y, X, 3) uint8 to TensorBoard alone."""
        self._board.draw(step, pictures)
        if self._web is not None:
            self._web.draw(step, pictures)

    def synced_length(self) -> int:
        """Return the bytes of log.jsonl once they are on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Write out what is pending."""
        self._file.close()
        self._board.close()
        if self._web is not None:
            self._web.close()


class _EventFile:
    """One of TensorBoard's files, written at once.

    The writer of its own package has a thread, which a full disk ends with a traceback.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Begin a file; of earlier ones TensorBoard shows what is not beyond this step."""
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        self._add(step=step + 1, session_log={"status": "START"})
        self._file.flush()

    def write(self, step: int, values: dict[str, float]) -> None:
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._add(step=step, summary={"value": scalars})
        self._file.flush()

    def draw(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        images = []
        for name, picture in pictures.items():
            png = base64.b64encode(iio.imwrite("<bytes>", picture, extension=".png")).decode()
            sizes = {"height": picture.shape[0], "width": picture.shape[1], "colorspace": 3}
            images.append({"tag": name, "image": {**sizes, "encoded_image_string": png}})
        self._add(step=step, summary={"value": images})
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _add(self, **fields: Any) -> None:
        event = ParseDict({"wall_time": time.time(), **fields}, _EVENT())
        self._records.write(event.SerializeToString())


class Status:
    """A bar on a terminal, else a line now and then."""

    def __init__(self, step: int, steps: int, shown: bool, log: RunLog | None) -> None:
        """Begin.

        Args:
            step: Steps taken before.
            steps: Steps of the run.
            shown: Whether this process talks.
            log: Closed with it.
        """
        self.first, self.steps, self.shown, self.log = step, steps, shown, log
        self.began = self.told = time.monotonic()
        terminal = shown and sys.stderr.isatty()
        self._bar = progress_bar(total=steps, initial=step, unit="step") if terminal else None

    def update(self, step: int, loss: float | None) -> None:
        """Tell where the run stands.

        Args:
            step: Steps taken.
            loss: The last one that was logged.
        """
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if loss is not None:
                self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            return
        now = time.monotonic()
        if self.shown and now - self.told >= LINE_EVERY_S:
            self.told = now
            rate = (step - self.first) / (now - self.began)
            end = time.strftime(
                "%a %H:%M", time.localtime(time.time() + (self.steps - step) / rate)
            )
            text = "" if loss is None else f", loss {loss:.4f}"
            _LOG.info(f"step {step} of {self.steps}{text}, {rate:.2f} steps/s, done {end}")

    def close(self) -> None:
        """End the bar and the log."""
        if self._bar is not None:
            self._bar.close()
        if self.log is not None:
            self.log.close()
