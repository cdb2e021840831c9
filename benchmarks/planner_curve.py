"""How many evaluations a planner needs: `python benchmarks/planner_curve.py`.

Every planner runs with several budgets on the same held-out episodes with the same world model. The
table and `plot.png` show success and final distance against the candidates that were imagined for
each action; `published` is the budget of V-JEPA 2-AC, 800 samples times 10 iterations.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from jepa_gym import TASKS
from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.intervals import wilson
from jepa_gym.benchmarks.reach_grasp import environment_arguments
from jepa_gym.benchmarks.runner import (
    HELD_OUT_SEEDS,
    BenchmarkError,
    environment,
    run_jobs,
    world_model,
)

BUDGETS: dict[str, tuple[dict[str, int], ...]] = {
    "cem": (
        {"samples": 8, "iterations": 2, "elites": 3},
        {"samples": 16, "iterations": 4, "elites": 4},
        {"samples": 32, "iterations": 6},
        {"samples": 64, "iterations": 10},
    ),
    "icem": (
        {"samples": 16, "iterations": 3, "elites": 4},
        {"samples": 48, "iterations": 6},
    ),
    "mppi": ({"samples": 16, "iterations": 4}, {"samples": 32, "iterations": 6}),
    "random": ({"samples": 16, "iterations": 4}, {"samples": 32, "iterations": 6}),
    "gradient": ({"samples": 4, "iterations": 12}, {"samples": 8, "iterations": 24}),
    "hybrid": ({"samples": 32, "iterations": 3},),
}
"""Planner -> what is changed in its configuration, from the smallest budget to the largest."""
PUBLISHED = "published"
FILES = ("episodes.jsonl", "summary.json", "plot.png")


@dataclass(frozen=True)
class Arguments:
    """Measure success against the number of imagined candidates, for every planner."""

    planners: tuple[str, ...] = tuple(BUDGETS)
    """Which planners."""
    tasks: tuple[str, ...] = ("reach", "grasp")
    """What to do."""
    obj: str = "box"
    """With what."""
    episodes: int = 20
    """Episodes of each point."""
    published_episodes: int = 20
    """Episodes of the published budget, which takes forty times as long; 0 leaves it out."""
    seed: int = 0
    """First held-out seed; every point meets the same episodes."""
    checkpoint: str = "default"
    """World model: the shipped one, or a folder."""
    output: Path = Path("results/planner_curve")
    """Folder for the results; an earlier run's are replaced."""
    workers: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        for name, least in (("episodes", 1), ("published_episodes", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        for name, allowed in (("planners", tuple(BUDGETS)), ("tasks", tuple(TASKS))):
            unknown = set(getattr(self, name)) - set(allowed)
            if unknown or not getattr(self, name):
                raise ValueError(f"`{name}` must be among {allowed}, got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True)
class Job:
    """One episode of one point."""

    planner: str
    budget: tuple[tuple[str, int], ...]
    """Changes of the planner's configuration; empty for the published preset of CEM."""
    task: str
    obj: str
    seed: int
    checkpoint: str

    @property
    def name(self) -> str:
        """What the budget is called in the table."""
        samples = dict(self.budget)
        if not samples:
            return PUBLISHED
        return "x".join(str(samples[key]) for key in ("samples", "iterations") if key in samples)

    def __str__(self) -> str:
        return f"{self.planner} {self.name} on {self.task}, seed {self.seed}"


def play(job: Job) -> tuple[dict[str, Any], None]:
    """Run one episode; return what the curve needs."""
    model = world_model(job.checkpoint)
    shown = json.dumps(model.config.frame.env_kwargs(), sort_keys=True)
    env, agent = environment(job.task, job.obj, shown), _agent(job, model)
    observation, info = env.reset(seed=job.seed)
    memory, truncated, evaluations, seconds = None, False, [], []
    while not truncated:
        begin = time.perf_counter()
        start = np.array([memory is None])
        action, memory = agent.predict(observation, memory, episode_start=start)
        seconds.append(time.perf_counter() - begin)
        evaluations.append(int(np.isfinite(agent.last_plan.energies).sum()))
        observation, _, _, truncated, info = env.step(action)
    return {
        "planner": job.planner,
        "budget": job.name,
        "task": job.task,
        "seed": job.seed,
        "success_at_end": bool(info["success_at_end"]),
        "distance_m": float(info["distance_m"]),
        "evaluations": float(np.mean(evaluations)),
        "seconds_per_action": float(np.mean(seconds)),
    }, None


def _agent(job: Job, model: Any) -> Any:
    from jepa_gym.agents.mpc import MPCAgent
    from jepa_gym.agents.planners import make_planner
    from jepa_gym.agents.planners.cem import CEMConfig

    published = CEMConfig.preset("paper")
    config = (
        replace(make_planner(job.planner).config, **dict(job.budget)) if job.budget else published
    )
    return MPCAgent(model, job.planner, replace(config, max_move_m=model.config.frame.max_move_m))


def jobs(arguments: Arguments) -> list[Job]:
    """Return the episodes, the slowest ones first."""
    first = HELD_OUT_SEEDS + arguments.seed

    def of(planner: str, budget: dict[str, int], count: int) -> list[Job]:
        key = tuple(budget.items())
        return [
            Job(planner, key, task, arguments.obj, seed, arguments.checkpoint)
            for task in arguments.tasks
            for seed in range(first, first + count)
        ]

    found = of("cem", {}, arguments.published_episodes) if "cem" in arguments.planners else []
    for planner in arguments.planners:
        for budget in reversed(BUDGETS[planner]):
            found += of(planner, budget, arguments.episodes)
    return found


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate the episodes of every point, by task and number of evaluations."""
    points: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for record in records:
        key = (record["task"], record["planner"], record["budget"])
        points.setdefault(key, []).append(record)
    found = []
    for (task, planner, budget), episodes in points.items():
        wins = sum(episode["success_at_end"] for episode in episodes)
        found.append(
            {
                "task": task,
                "planner": planner,
                "budget": budget,
                "episodes": len(episodes),
                "evaluations": float(np.mean([e["evaluations"] for e in episodes])),
                "success_at_end": wins / len(episodes),
                "ci95": list(wilson(wins, len(episodes))),
                "median_distance_m": float(np.median([e["distance_m"] for e in episodes])),
                "seconds_per_action": float(np.mean([e["seconds_per_action"] for e in episodes])),
            }
        )
    return sorted(found, key=lambda row: (row["task"], row["planner"], row["evaluations"]))


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Format rows for the terminal."""
    header = f"{'task':8}{'planner':10}{'budget':>10}{'evaluations':>13}{'n':>5}{'success':>9}"
    text = [f"{header}{'95 % interval':>18}{'median distance':>17}{'s/action':>10}"]
    text.append("-" * len(text[0]))
    for row in lines:
        low, high = row["ci95"]
        text.append(
            f"{row['task']:8}{row['planner']:10}{row['budget']:>10}{row['evaluations']:13.0f}"
            f"{row['episodes']:5}{row['success_at_end']:9.0%}{f'{low:.0%} to {high:.0%}':>18}"
            f"{row['median_distance_m'] * 100:14.1f} cm{row['seconds_per_action']:10.2f}"
        )
    return "\n".join(text)


def savings(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Find, by task and planner, the least evaluations with the success of the published budget.

    Returns:
        Task -> planner -> `evaluations` and how many `times_fewer`; planners that never get there
        are left out, and so are tasks without the published budget.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for reference in (row for row in lines if row["budget"] == PUBLISHED):
        task = found.setdefault(reference["task"], {})
        for row in lines:  # by planner, from few to many evaluations
            enough = row["success_at_end"] >= reference["success_at_end"]
            if row["task"] == reference["task"] and row is not reference and enough:
                fewer = reference["evaluations"] / row["evaluations"]
                point = {"evaluations": row["evaluations"], "times_fewer": fewer}
                task.setdefault(row["planner"], point)
    return found


def write_plot(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw success against evaluations, one panel a task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in lines))
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for task, axis in zip(tasks, axes[0], strict=True):
        for planner in dict.fromkeys(row["planner"] for row in lines):
            points = [row for row in lines if (row["task"], row["planner"]) == (task, planner)]
            x = np.array([row["evaluations"] for row in points])
            y = np.array([row["success_at_end"] for row in points])
            ends = np.array([row["ci95"] for row in points]).reshape(-1, 2)
            errors = np.clip([y - ends[:, 0], ends[:, 1] - y], 0, None)
            axis.errorbar(x, y, errors, marker="o", capsize=3, label=planner)
        axis.set(xscale="log", xlabel="imagined candidates per action", title=task)
        axis.set(ylabel="success at the end", ylim=(0, 1.05))
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run(arguments: Arguments) -> list[dict[str, Any]]:
    """Run the benchmark, write its files, print its table and return the table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
    """
    begin = time.perf_counter()
    env_kwargs, folder = environment_arguments(arguments.checkpoint)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (arguments.output / name).unlink(missing_ok=True)
    records, _ = run_jobs(
        jobs(arguments), arguments.output / FILES[0], arguments.workers, play, "episodes"
    )
    lines = rows(records)
    print(table(lines))
    saved = savings(lines)
    for task, planners in saved.items():
        for planner, point in planners.items():
            print(
                f"{task}: {planner} has the success of the published budget with "
                f"{point['evaluations']:.0f} evaluations, {point['times_fewer']:.0f} times fewer"
            )
    settings = {
        "episodes": arguments.episodes,
        "published_episodes": arguments.published_episodes,
        "first_env_seed": HELD_OUT_SEEDS + arguments.seed,
        "object": arguments.obj,
        "environment": env_kwargs,
        "wall_s": round(time.perf_counter() - begin, 1),
    }
    summary = report.summary(lines, settings, folder) | {"savings": saved}
    report.write_json(summary, arguments.output / FILES[1])
    write_plot(lines, arguments.output / FILES[2])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        run(tyro.cli(Arguments, args=arguments, description=Arguments.__doc__))
    except (BenchmarkError, FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
