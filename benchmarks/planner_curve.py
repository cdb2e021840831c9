"""How many evaluations a planner needs: `python benchmarks/planner_curve.py`.

Every planner runs with several budgets on the same held-out episodes with the same world model. The
table and `plot.png` show success and final distance against the candidates that were imagined for
each action; `paper` is the budget of V-JEPA 2-AC, 800 samples times 10 iterations, for our agent.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jepa_gym import TASKS
from jepa_gym.agents import MPC_PREFIX
from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, Cell, Job, run_episode
from jepa_gym.benchmarks.options import at_least, known_names
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.commands import run_command
from jepa_gym.files import atomic_write

BUDGETS: dict[str, tuple[dict[str, int], ...]] = {
    "cem": (
        {"samples": 8, "iterations": 2, "top_k": 3},
        {"samples": 16, "iterations": 4, "top_k": 4},
        {"samples": 32, "iterations": 6},
        {"samples": 64, "iterations": 10},
    ),
    "icem": (
        {"samples": 16, "iterations": 3, "top_k": 4},
        {"samples": 48, "iterations": 6},
    ),
    "mppi": ({"samples": 16, "iterations": 4}, {"samples": 32, "iterations": 6}),
    "random": ({"samples": 16, "iterations": 4}, {"samples": 32, "iterations": 6}),
    "gradient": ({"samples": 4, "iterations": 12}, {"samples": 8, "iterations": 24}),
    "hybrid": ({"samples": 32, "iterations": 3},),
}
"""Planner -> what is changed in its configuration, from the smallest budget to the largest."""
PAPER = "paper"


@dataclass(frozen=True)
class Arguments:
    """Measure success against the number of imagined candidates, for every planner."""

    planners: tuple[str, ...] = tuple(BUDGETS)
    """Which planners."""
    tasks: tuple[str, ...] = ("reach", "grasp")
    """What to do."""
    obj: str = "box"
    """With what."""
    protocol: Literal["published", "suite", "one"] = "suite"
    """Which goal images the planners are shown; grasping takes the four of the suite."""
    episodes: int = 20
    """Episodes of each point."""
    paper_episodes: int = 20
    """Episodes of the paper's budget, which takes forty times as long; 0 leaves it out."""
    seed: int = 0
    """First held-out seed; every point meets the same episodes."""
    checkpoint: str = "default"
    """World model: the shipped one, or a folder."""
    output: Path = Path("results/planner_curve")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder that were made with another model, version or environment."""
    workers: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        at_least(self, episodes=1, paper_episodes=0, seed=0, workers=1)
        known_names("planners", self.planners, BUDGETS)
        known_names("tasks", self.tasks, TASKS)


def jobs_of(arguments: Arguments) -> list[Job]:
    """Return the episodes, the slowest ones first."""
    first = HELD_OUT_SEEDS + arguments.seed

    def of(planner: str, name: str, changes: dict[str, int], count: int) -> list[Job]:
        agent, shown = f"{MPC_PREFIX}{planner}", arguments.protocol
        return [
            Job(cell, seed, arguments.checkpoint, planner=changes)
            for task in arguments.tasks
            for cell in [Cell(agent, task, arguments.obj, protocol=shown, budget=name)]
            for seed in range(first, first + count)
        ]

    found = []
    if "cem" in arguments.planners:
        found += of("cem", PAPER, {}, arguments.paper_episodes)
    for planner in arguments.planners:
        for budget in reversed(BUDGETS[planner]):
            name = "x".join(str(budget[key]) for key in ("samples", "iterations"))
            found += of(planner, name, budget, arguments.episodes)
    return found


def points(records: Sequence[Record]) -> list[Record]:
    """Aggregate the episodes by task, planner and budget, and compare with the paper's budget.

    Args:
        records: The episode records.

    Returns:
        Rows as `report.rows` makes them, by task, planner and number of evaluations. Those that met
        the same seeds as the paper's budget have `against_paper`: see `report.pair`.
    """
    groups = report.group(records, ("task", "object", "protocol", "agent", "budget"))
    rows = []
    for (*where, _, _), episodes in groups.items():
        reference = groups.get((*where, f"{MPC_PREFIX}cem", PAPER), [])
        compared = None if episodes is reference else report.pair(reference, episodes)
        rows += [row | {"against_paper": compared} for row in report.rows(episodes)]
    return sorted(rows, key=lambda row: (row["task"], row["agent"], row["evaluations"]))


def savings(rows: Sequence[Record]) -> list[Record]:
    """Find, by task and planner, the least evaluations that do as well as the paper's budget.

    As well means: on the same seeds the 95 % interval of the difference reaches up to 0 at least.

    Returns:
        Those rows with `times_fewer` beside; planners that never get there are left out, and so are
        tasks without the paper's budget.
    """
    found: dict[tuple[str, ...], Record] = {}
    paper = {row["task"]: row["evaluations"] for row in rows if row["budget"] == PAPER}
    for row in rows:  # by planner, from few to many evaluations
        compared = row["against_paper"]
        if compared is not None and compared["ci95"][1] >= 0:
            fewer = paper[row["task"]] / row["evaluations"]
            found.setdefault((row["task"], row["agent"]), row | {"times_fewer": fewer})
    return list(found.values())


def saving_line(row: Record) -> str:
    """Say how many evaluations a planner saves, and how sure that is."""
    compared = row["against_paper"]
    low, high = compared["ci95"]
    return (
        f"{row['task']}: {row['agent']} with {row['evaluations']:.0f} evaluations, "
        f"{row['times_fewer']:.0f} times fewer, is within noise of the paper's budget "
        f"({compared['difference']:+.0%}, 95 % interval {low:+.0%} to {high:+.0%}, "
        f"{compared['pairs']} common seeds)"
    )


def write_plot(rows: Sequence[Record], path: Path) -> None:
    """Draw success against evaluations, one panel a task."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(5 * len(tasks), 4), dpi=110)
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for task, axis in zip(tasks, axes, strict=True):
        for agent in dict.fromkeys(row["agent"] for row in rows):
            curve = [row for row in rows if (row["task"], row["agent"]) == (task, agent)]
            x = np.array([row["evaluations"] for row in curve])
            y = np.array([row["success_at_end"] for row in curve])
            ends = np.array([row["ci95"] for row in curve]).reshape(-1, 2)
            errors = np.clip([y - ends[:, 0], ends[:, 1] - y], 0, None)
            label = agent.removeprefix(MPC_PREFIX)
            axis.errorbar(x, y, errors, marker="o", capsize=3, label=label)
        axis.set(xscale="log", xlabel="imagined candidates per action", title=task)
        axis.set(ylabel="success at the end", ylim=(0, 1.05))
    axes[0].legend()
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file)


def run(arguments: Arguments) -> list[Record]:
    """Run the benchmark, write its files, print its table and return the table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, output = time.perf_counter(), arguments.output
    jobs = jobs_of(arguments)
    settings = settings_of(arguments.checkpoint) | {
        f"budget {job.cell.agent} {job.cell.budget}": job.planner for job in jobs
    }
    with Results(output, "episodes.jsonl", settings, arguments.overwrite) as results:
        run_jobs(jobs, results, run_episode, arguments.workers)
        rows = points(results.ordered([job.identity for job in jobs]))
        saved = savings(rows)
        print(report.table(rows), *map(saving_line, saved), sep="\n")
        asked = report.arguments_of(arguments, begin)
        summary = report.summary(rows, results.settings, asked) | {"savings": saved}
        write_json(summary, output / "summary.json")
        write_plot(rows, output / "plot.png")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
