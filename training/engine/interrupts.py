"""Ctrl-C and SIGTERM wait for the end of a step, so that no step is cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jepa_gym.commands import Terminated


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM in a list; a second Ctrl-C does not wait.

    Outside the main thread, which alone gets signals, the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def collect(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, collect) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_of(received: list[int]) -> KeyboardInterrupt:
    """Return the exception that ends a command after these signals (none: another process's)."""
    return KeyboardInterrupt() if signal.SIGINT in received else Terminated()
