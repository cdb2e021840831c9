"""The main job: agents on reaching and grasping, over the same held-out seeds.

`python benchmarks/reach_grasp.py` prints a table and writes, under `results/reach_grasp/`, one JSON
line an episode (`episodes.jsonl`), `summary.json`, `plot.png` and a video for every row.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.runner import (
    AGENTS,
    GRIPPER_WEIGHT,
    HELD_OUT_SEEDS,
    BenchmarkError,
    Cell,
    Job,
    run_jobs,
)

EPISODES = 30
QUICK_EPISODES = 4


@dataclass(frozen=True)
class Arguments:
    """Compare agents on reaching and grasping, over the same held-out seeds."""

    agents: tuple[str, ...] = ("random", "scripted", "mpc-cem")
    """Who acts: random, scripted (reads the simulator; it shows what is possible), sac, or mpc-cem,
    -icem, -mppi, -gradient, -random, -hybrid."""
    tasks: tuple[Literal["reach", "grasp"], ...] = ("reach", "grasp")
    """What to do."""
    objects: tuple[Literal["box", "cup"], ...] = ("box", "cup")
    """What to grasp. Reaching only looks at the object, so it runs with the first of them."""
    episodes: int | None = None
    """Episodes a row: 30, with --quick 4."""
    seed: int = 0
    """First held-out seed; every agent meets the same episodes."""
    checkpoint: str = "default"
    """World model of the mpc agents: the shipped one, or a folder."""
    sac_policy: Path | None = None
    """Policy of sac, as `jepa-gym train-rl` writes it; it knows the task it was trained on."""
    output: Path = Path("results/reach_grasp")
    """Folder for the results; an earlier run's are replaced."""
    workers: int = 2
    """Processes of one thread each."""
    quick: bool = False
    """A look in two minutes instead of ten."""

    def __post_init__(self) -> None:
        """Check ranges and fill in the number of episodes.

        Raises:
            ValueError: If a number is out of its range.
        """
        if self.episodes is None:
            object.__setattr__(self, "episodes", QUICK_EPISODES if self.quick else EPISODES)
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if unknown := set(self.agents) - set(AGENTS):
            raise ValueError(f"`agents` must be among {AGENTS}, got {sorted(unknown)}.")
        if "sac" in self.agents and self.sac_policy is None:
            raise ValueError("The agent sac needs `--sac-policy`; train one: jepa-gym train-rl")
        for name in ("agents", "tasks", "objects"):
            if not getattr(self, name):
                raise ValueError(f"`{name}` must name at least one.")


def cells(arguments: Arguments) -> list[Cell]:
    """Return the rows to run: every agent on every task, planners on grasping with both goals."""
    found = []
    for task in arguments.tasks:
        for obj in arguments.objects if task == "grasp" else arguments.objects[:1]:
            for agent in arguments.agents:
                found.append(Cell(agent, task, obj, "state" if agent == "sac" else "image"))
                if agent.startswith("mpc-") and task == "grasp":
                    found.append(Cell(agent, task, obj, "image+gripper"))
    return list(dict.fromkeys(found))


def make_jobs(arguments: Arguments, env_kwargs: dict[str, Any]) -> list[Job]:
    """Return the episodes, seed by seed, the first of every row filmed."""
    first = HELD_OUT_SEEDS + arguments.seed
    return [
        Job(cell, seed, _source(cell, arguments), env_kwargs, film=seed == first)
        for seed in range(first, first + arguments.episodes)
        for cell in cells(arguments)
    ]


def _source(cell: Cell, arguments: Arguments) -> str:
    """Return what the agent of a cell is loaded from."""
    return str(arguments.sac_policy) if cell.agent == "sac" else arguments.checkpoint


def environment_arguments(checkpoint: str) -> tuple[dict[str, Any], Path]:
    """Return what the world model expects of `gym.make`, and the checkpoint's folder.

    Raises:
        FileNotFoundError: If the checkpoint or one of its files is missing.
        ValueError: If it cannot be read.
    """
    from jepa_gym.world_model import WorldModel

    model = WorldModel.from_pretrained(checkpoint)
    return model.config.frame.env_kwargs(), model.folder


def run(arguments: Arguments) -> list[dict[str, Any]]:
    """Run the benchmark, write its files and print its table.

    Args:
        arguments: What to run.

    Returns:
        The table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
    """
    from jepa_gym.benchmarks.video import write_video

    begin = time.perf_counter()
    plans = any(agent.startswith("mpc-") for agent in arguments.agents)
    env_kwargs, folder = environment_arguments(arguments.checkpoint) if plans else ({}, None)
    output = arguments.output
    (output / "videos").mkdir(parents=True, exist_ok=True)
    stale = ("episodes.jsonl", "summary.json", "plot.png", "videos/*.mp4")
    for path in [path for pattern in stale for path in output.glob(pattern)]:
        path.unlink()
    jobs = make_jobs(arguments, env_kwargs)
    records, films = run_jobs(jobs, output / "episodes.jsonl", arguments.workers)
    rows = report.rows(records)
    print(report.table(rows))
    report.write_plot(rows, records, output / "plot.png")
    for film in films:
        cell = film.cell
        name = f"{cell.agent}_{cell.task}_{cell.object}_{cell.goal}.mp4"
        write_video(film, output / "videos" / name)
    settings = {
        "agents": list(arguments.agents),
        "tasks": list(arguments.tasks),
        "objects": list(arguments.objects),
        "episodes": arguments.episodes,
        "first_env_seed": HELD_OUT_SEEDS + arguments.seed,
        "checkpoint": arguments.checkpoint,
        "sac_policy": str(arguments.sac_policy) if "sac" in arguments.agents else None,
        "environment": env_kwargs,
        "gripper_weight": GRIPPER_WEIGHT,
        "workers": arguments.workers,
        "wall_s": round(time.perf_counter() - begin, 1),
    }
    report.write_json(report.summary(rows, settings, folder), output / "summary.json")
    print(f"\n{len(records)} episodes in {settings['wall_s']:.0f} s; results in {output}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Flags, or None for those of the process.

    Returns:
        The exit status.
    """
    try:
        run(tyro.cli(Arguments, args=arguments))
    except (BenchmarkError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
