"""Speed of the Franka suite, against stock robosuite and against bars, in one run.

`python benchmarks/sim_speed.py` measures with one thread a process, so figures are per core: frames
against stock robosuite doing the same motion and picture, where a step's time goes, `reset` and its
memory, construction, and environments in processes. What it measures stands in `sim_measures.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.benchmarks.timing import Measurement, command

Part = Literal["construction", "frames", "share", "resets", "vector"]
PARTS: tuple[Part, ...] = ("construction", "frames", "share", "resets", "vector")
RATIO_BARS = {128: 15.0, 256: 12.0}
"""Frames per CPU-second against stock robosuite, by picture size."""
SECOND_ENV_BAR_S = 0.3
RESET_BAR_MS = 15.0
VECTOR_BAR = 1.8


@dataclass(frozen=True)
class SpeedConfig(Measurement):
    """Measure the Franka suite's speed with one thread a process, against stock robosuite."""

    parts: tuple[Part, ...] = PARTS
    """What to measure. Construction is honest only as the first thing a process does."""
    frames: int = 300
    """Frames per measurement; stock robosuite gets a fifth of them."""
    image_sizes: tuple[int, ...] = (128, 256)
    """Height and width of one picture, for the comparison with stock robosuite."""
    resets: int = 10_000
    """Resets of every task, with pictures."""
    vector_envs: tuple[int, ...] = (2, 4, 8)
    """Numbers of environments in processes, on two cores."""
    rounds: int = 15
    """Rounds of the measurement of processes, in which all take turns."""

    QUICK = {"frames": 30, "resets": 100, "rounds": 3}
    LEAST = {"frames": 2, "resets": 1}

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range, or nothing is to be measured.
        """
        super().__post_init__()
        for name in ("parts", "image_sizes", "vector_envs"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must name at least one")
        for name, least in (("image_sizes", 16), ("vector_envs", 1)):
            if min(getattr(self, name)) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}")


def run(config: SpeedConfig) -> Record:
    """Measure `config.parts`, print each table as it is ready, and return all figures."""
    from jepa_gym.benchmarks import sim_measures as measures

    figures: Record = {}
    if "construction" in config.parts:
        figures["construction"] = measures.construction()
        print_construction(figures["construction"])
    figures["machine"] = measures.machine()
    print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    if "frames" in config.parts:
        figures["frames"] = [measures.frames(size, config.frames) for size in config.image_sizes]
        print_frames(figures["frames"])
    if "share" in config.parts:
        figures["share"] = measures.share(config.frames)
        print_share(figures["share"])
    if "resets" in config.parts:
        ids = measures.franka_ids()
        figures["resets"] = {env_id: measures.resets(env_id, config.resets) for env_id in ids}
        print_resets(figures["resets"], config.resets)
    if "vector" in config.parts:
        figures["vector"] = measures.vector(config.vector_envs, config.frames, config.rounds)
        print_vector(figures["vector"])
    return figures


def print_construction(found: dict[str, float]) -> None:
    """Print the seconds until the first and the second environment stand."""
    print(
        f"construction: imports {found['imports_s']:.2f} s, first environment "
        f"{found['first_s']:.2f} s, second {found['second_s']:.2f} s (bar {SECOND_ENV_BAR_S} s)"
    )


def print_frames(rows: list[dict[str, Any]]) -> None:
    """Print the comparison with stock robosuite."""
    cells: list[tuple[str, ...]] = [("", "frames/s", "per CPU-s", "ratio", "bar")]
    for row in rows:
        for name, figures in row["rows"].items():
            bar = RATIO_BARS.get(row["image_size"]) if name != "stock robosuite" else None
            numbers = (f"{figures[key]:.1f}" for key in figures)
            name = f"{row['image_size']} px, {name}"
            cells.append((name, *numbers, "" if bar is None else f"{bar:.0f}"))
    print(f"\n{aligned(cells)}")


def print_share(found: dict[str, Any]) -> None:
    """Print where the time of a step goes, and what cannot be saved."""
    whole = found["step_ms"]
    parts = found["share_ms"] | {f"floor: {name}": ms for name, ms in found["floor_ms"].items()}
    cells = [("reach, left, 128 px", f"{whole:.2f} ms", "share")]
    cells += [(name, f"{part:.2f} ms", f"{part / whole:.0%}") for name, part in parts.items()]
    print(f"\nwhere a step's time goes\n{aligned(cells)}")


def print_resets(rows: dict[str, dict[str, float | None]], count: int) -> None:
    """Print the time of a reset and the memory that `count` of them left behind."""
    cells: list[tuple[str, ...]] = [("reset()", "median, ms", "95th", "CPU", "growth, MiB")]
    for env_id, row in rows.items():
        cells.append((env_id, *("unknown" if x is None else f"{x:.1f}" for x in row.values())))
    print(f"\n{aligned(cells)}\n{count} resets each; bar: median {RESET_BAR_MS:.0f} ms, no growth")


def print_vector(found: dict[str, Any]) -> None:
    """Print frames per second of one environment and of several in processes."""
    cells = [(f"in processes, {found['cores']} cores", "frames/s", "ratio")]
    for name, row in found["rows"].items():
        cells.append((name, f"{row['frames_per_s']:.1f}", f"{row['ratio']:.2f}"))
    print(f"\n{aligned(cells)}\nmedians over the rounds; bar on 2 cores: {VECTOR_BAR}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, SpeedConfig, arguments, one_thread=True)


if __name__ == "__main__":
    sys.exit(main())
