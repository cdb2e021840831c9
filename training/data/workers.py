"""Processes that share work, and end with their parent however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_end
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4
"""Items per process that are handed out before a result is taken; bounds what waits in memory."""


def work(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Apply a function to items in several processes.

    Ctrl-C and SIGTERM are the parent's to handle: items that were begun are finished, no more are.
    A process whose parent was killed ends at once.

    Args:
        function: A function of a module, so that other processes can import it.
        items: What it is applied to; they are taken one by one, as there is room.
        processes: How many processes work; with one it is the process that asks.

    Yields:
        The results, in the order of the items.

    Raises:
        RuntimeError: If a process was killed, as the system does where memory is short.
    """
    if processes == 1:
        yield from map(function, items)
        return
    items = iter(items)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_serve_parent)
    try:
        waiting: deque[Future[Result]] = deque()
        while True:
            room = AHEAD * processes - len(waiting)
            waiting.extend(pool.submit(function, item) for item in islice(items, room))
            if not waiting:
                return
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps because memory was short; give the same command "
            "again, with fewer workers if there is such a flag. A script of your own must open the "
            "dataset below `if __name__ == '__main__':`, for every worker runs it from its start"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _serve_parent() -> None:
    """Leave signals to the parent, and end when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)
