"""Work shared over the machines of a Ray cluster.

Workers need no common disk: what a function is given and what it returns travels. The machines must
have the same versions of the packages, and draw their pictures with the same renderer.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")


def run_on_cluster(
    function: Callable[..., Any], items: Sequence[Item], workers: int, *shared: Any
) -> Iterator[tuple[Item, Any]]:
    """Run a function on the cluster of RAY_ADDRESS, or on a local one that ends with this.

    Args:
        function: Called as `function(*shared, item)`; importable by name on every machine.
        items: What it is called with.
        workers: How many calls run at once.
        *shared: What every call needs; sent once.

    Yields:
        An item with its result, in the order in which they are finished.

    Raises:
        ImportError: If Ray is not installed.
        RuntimeError: If there is no cluster at RAY_ADDRESS, or a call failed.
    """
    ray = _ray()
    started_here = not ray.is_initialized()
    if started_here:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        handler = signal.getsignal(signal.SIGTERM)
        own = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
        try:
            ray.init(log_to_driver=False, logging_level="error", include_dashboard=False, **own)
        except Exception as error:  # Ray raises the bare class, too
            raise RuntimeError(f"cannot reach or start a Ray cluster: {error}") from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process without a word
    try:
        task = ray.remote(num_cpus=1, max_retries=3)(function)
        sent = [ray.put(one) for one in shared]
        waiting = iter(items)
        working = {task.remote(*sent, item): item for item in islice(waiting, workers)}
        while working:
            (done,), _ = ray.wait(list(working), num_returns=1)
            item = working.pop(done)
            working |= {task.remote(*sent, other): other for other in islice(waiting, 1)}
            try:
                result = ray.get(done)
            except ray.exceptions.RayError as error:
                raise RuntimeError(f"{item} failed on the cluster: {error}") from error
            yield item, result
    finally:
        if started_here:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]  (an extra)
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            'sharing the work over machines needs Ray: pip install "jepa-gym[ray]", on all of them'
        ) from error
    return ray
