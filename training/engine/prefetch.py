"""The next batch is drawn while a step is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from jepa_gym.training.engine.task import Batch

Place = tuple[int, int]
"""A step, and which part of its batch."""


class Batches:
    """Batches on the device, one drawn ahead by a thread.

    What is drawn follows from the step alone, so it is the same whoever draws it, and when.
    """

    def __init__(
        self, draw: Callable[[int, slice], Batch], parts: Sequence[slice], device: torch.device
    ) -> None:
        """Prepare; the thread starts with the first batch.

        Args:
            draw: `Task.draw`.
            parts: The rows of each part of a batch that this process computes.
            device: Where batches go.
        """
        self.waited_s = 0.0
        self._draw, self._parts, self._device = draw, parts, device
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: tuple[Place, Future[Batch]] | None = None

    def get(self, step: int, part: int, steps: int) -> Batch:
        """Return a part of a step's batch, and begin to draw the one after it.

        Args:
            step: From 0.
            part: From 0.
            steps: Steps of the run; nothing is drawn beyond its end.
        """
        began, place = time.perf_counter(), (step, part)
        if self._ahead is not None and self._ahead[0] == place:
            drawn = self._ahead[1].result()
        else:
            self.close()
            drawn = self._fetch(place)
        batch = {name: x.to(self._device, non_blocking=True) for name, x in drawn.items()}
        self.waited_s += time.perf_counter() - began
        following = (step, part + 1) if part + 1 < len(self._parts) else (step + 1, 0)
        self._ahead = None
        if following[0] < steps:
            self._thread = self._thread or ThreadPoolExecutor(1, "batches")
            self._ahead = following, self._thread.submit(self._fetch, following)
        return batch

    def close(self) -> None:
        """End the thread, and forget what it has drawn."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._ahead = None

    def _fetch(self, place: Place) -> Batch:
        drawn = self._draw(place[0], self._parts[place[1]])
        if self._device.type == "cuda":  # only pinned memory is copied while the GPU computes
            return {name: x.pin_memory() for name, x in drawn.items()}
        return drawn
