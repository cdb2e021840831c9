"""What the speed benchmarks share: taking turns, memory, threads, and how they are called."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from jepa_gym.benchmarks.options import at_least
from jepa_gym.benchmarks.results import Record, write_json
from jepa_gym.commands import run_command

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
"""LP is Mesa's software renderer; 0 keeps it in the calling thread."""


@dataclass(frozen=True)
class Measurement:
    """What is told to every benchmark that takes turns."""

    rounds: int = 3
    """Measurements of each, by turns; medians count."""
    quick: bool = False
    """A look in seconds or a minute, with few of everything."""
    output: Path | None = None
    """JSON file for the figures."""

    QUICK: ClassVar[dict[str, int]] = {}
    """Fields that --quick sets."""
    LEAST: ClassVar[dict[str, float]] = {}
    """Least values of fields, 1 for `rounds`."""

    def __post_init__(self) -> None:
        """Apply `quick` and check ranges.

        Raises:
            ValueError: If a number is out of its range, or `output` is no JSON file.
        """
        if self.output is not None and self.output.suffix != ".json":
            raise ValueError(f"`output` must end in .json, got {self.output}")
        for name, value in self.QUICK.items() if self.quick else ():
            object.__setattr__(self, name, value)
        at_least(self, rounds=1, **self.LEAST)


def command(
    run: Callable[[Any], Record],
    config: type[Any],
    arguments: Sequence[str] | None = None,
    one_thread: bool = False,
) -> int:
    """Run a speed benchmark from the command line and write its figures.

    Args:
        run: Measures, prints, and returns the figures (JSON types).
        config: Its configuration, a dataclass with `output`.
        arguments: The flags, or None for those of the process.
        one_thread: Begin anew in a process whose libraries take one thread each.

    Returns:
        The exit status; 1 too if the figures say that a bar is not `met`.
    """

    def measure(chosen: Any) -> int:
        if one_thread and any(os.environ.get(n) != value for n, value in ONE_THREAD.items()):
            # libraries read these when they are loaded, and some may be by now
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
        if chosen.output is not None:  # found out before anything is measured
            chosen.output.parent.mkdir(parents=True, exist_ok=True)
        figures = run(chosen)
        if chosen.output is not None:
            told = {n: str(x) if isinstance(x, Path) else x for n, x in asdict(chosen).items()}
            write_json({"config": told} | figures, chosen.output)
        return 0 if figures.get("met", True) else 1

    return run_command(measure, config, arguments, "Nothing is kept of a measurement.")


def medians(forwards: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median seconds by the clock and of the processor for each of some functions.

    They take turns, so that a busy machine slows all alike. Each is called once before, to warm up.
    """
    for forward in forwards.values():
        forward()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in forwards}
    for _ in range(rounds):
        for name, forward in forwards.items():
            wall, cpu = time.perf_counter(), time.process_time()
            forward()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    found = {}
    for name, pairs in times.items():
        wall, cpu = zip(*pairs, strict=True)
        found[name] = {"wall_s": statistics.median(wall), "cpu_s": statistics.median(cpu)}
    return found


def comparison(forwards: dict[str, Callable[[], Any]], rounds: int) -> Record:
    """Return how many times as fast as the first of two functions the second is.

    Returns:
        `rows` (see `medians`), `ratio` (by the clock) and `cpu_ratio`: seconds of the first over
        those of the second.
    """
    rows = medians(forwards, rounds)
    slow, fast = rows.values()
    return {
        "rows": rows,
        "ratio": slow["wall_s"] / fast["wall_s"],
        "cpu_ratio": slow["cpu_s"] / fast["cpu_s"],
    }


def print_comparison(title: str, found: Record, bar: str) -> None:
    """Print what `comparison` found."""
    print(title)
    for name, seconds in found["rows"].items():
        print(f"  {name:13}{seconds['wall_s']:9.3f} s{seconds['cpu_s']:9.3f} CPU s")
    print(f"  ratio {found['ratio']:.2f} ({bar}), of CPU seconds {found['cpu_ratio']:.2f}")


def memory() -> dict[str, int]:
    """Return VmRSS, VmHWM, RssAnon and RssFile of this process in bytes, {} without `/proc`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {}
    fields = (line.split() for line in status.read_text().splitlines())
    return {f[0].rstrip(":"): int(f[1]) * 1024 for f in fields if f[0].startswith(("Vm", "Rss"))}


def reset_peak() -> None:
    """Let VmHWM start anew from VmRSS.

    Raises:
        OSError: Where there is no `/proc`.
    """
    Path("/proc/self/clear_refs").write_text("5")
