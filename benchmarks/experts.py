"""Success of agents without a model, on every task and object: `python benchmarks/experts.py`.

The scripted expert shows what the suite allows; the explorers show what comes by chance. Failures
are counted by their reason.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import tyro

from jepa_gym import TASKS
from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.intervals import wilson
from jepa_gym.benchmarks.runner import HELD_OUT_SEEDS, BenchmarkError, run_jobs
from jepa_gym.envs.physics.objects import OBJECTS
from jepa_gym.envs.variations import split_objects

AgentName = Literal["scripted", "scripted-noisy", "random", "smooth-noise"]
CHUNK = 25
"""Episodes of one job; the bar moves after each."""
FILES = ("episodes.jsonl", "summary.json")


@dataclass(frozen=True)
class Arguments:
    """Play every task with every object, without a world model."""

    agent: AgentName = "scripted"
    """Who acts."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """What to do."""
    objects: tuple[str, ...] | None = None
    """With what; all that belong to the split if not given."""
    split: Literal["train", "object", "camera", "appearance", "all"] | None = None
    """How episodes look; without it, all alike."""
    episodes: int = 200
    """Episodes of each task and object."""
    seed: int = 0
    """First held-out seed."""
    output: Path = Path("results/experts")
    """Folder for the results; an earlier run's are replaced."""
    workers: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        """Check ranges and fill in the objects.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        possible = tuple(OBJECTS) if self.split is None else split_objects(self.split)
        if self.objects is None:
            object.__setattr__(self, "objects", possible)
        for name, least in (("episodes", 1), ("seed", 0), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        for name, allowed in (("tasks", tuple(TASKS)), ("objects", possible)):
            unknown = set(getattr(self, name)) - set(allowed)
            if unknown:
                raise ValueError(f"`{name}` must be among {allowed}, got {sorted(unknown)}.")


@dataclass(frozen=True, slots=True)
class Job:
    """Some episodes of one task and object."""

    agent: str
    task: str
    object: str
    split: str | None
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.agent} on {self.task} {self.object}, seeds from {self.seeds[0]}"


def play(job: Job) -> tuple[dict[str, Any], None]:
    """Play the episodes of a job; return the ends of all."""
    import jepa_gym  # noqa: F401  (registers the environments)

    ends = []
    with gym.make(TASKS[job.task], obj=job.object, obs_mode="state", split=job.split) as env:
        for seed in job.seeds:
            agent = _agent(job.agent, env, seed)
            observation, info = env.reset(seed=seed)
            memory, truncated = None, False
            while not truncated:
                action, memory = agent.predict(observation, memory)
                observation, _, _, truncated, info = env.step(action)
            ends.append(
                {
                    "seed": seed,
                    "success_at_end": info["success_at_end"],
                    "success_once": info["success_once"],
                    "failure": info["failure"],
                }
            )
    return {"agent": job.agent, "task": job.task, "object": job.object, "episodes": ends}, None


def _agent(name: str, env: gym.Env, seed: int) -> Any:
    from jepa_gym.agents import make_agent

    if name == "scripted":
        return make_agent(name, env=env)
    if name == "scripted-noisy":
        return make_agent(name, env=env, seed=seed)
    return make_agent(name, action_space=env.action_space, seed=seed)


def rows(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Aggregate the chunks of every task and object, in the order of first appearance."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        cells.setdefault((record["task"], record["object"]), []).extend(record["episodes"])
    found = []
    for (task, obj), episodes in cells.items():
        wins = sum(episode["success_at_end"] for episode in episodes)
        failures = Counter(episode["failure"] for episode in episodes if episode["failure"])
        found.append(
            {
                "task": task,
                "object": obj,
                "held_out": OBJECTS[obj].held_out,
                "episodes": len(episodes),
                "success_at_end": wins / len(episodes),
                "success_once": sum(e["success_once"] for e in episodes) / len(episodes),
                "ci95": list(wilson(wins, len(episodes))),
                "failures": dict(failures.most_common()),
            }
        )
    return found


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Format rows for the terminal."""
    text = [
        f"{'task':20}{'object':10}{'n':>5}{'at end':>9}{'95 % interval':>17}{'once':>8}  failures"
    ]
    text.append("-" * 88)
    for row in lines:
        low, high = row["ci95"]
        failures = ", ".join(f"{count} {reason}" for reason, count in row["failures"].items())
        name = row["object"] + ("*" if row["held_out"] else "")
        text.append(
            f"{row['task']:20}{name:10}{row['episodes']:5}{row['success_at_end']:9.1%}"
            f"{f'{low:.1%} to {high:.1%}':>17}{row['success_once']:8.1%}  {failures}"
        )
    return "\n".join([*text, "", "* held out: never used for training"])


def run(arguments: Arguments) -> list[dict[str, Any]]:
    """Run the benchmark, write its files, print its table and return the table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
    """
    begin = time.perf_counter()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (arguments.output / name).unlink(missing_ok=True)
    first = HELD_OUT_SEEDS + arguments.seed
    seeds = range(first, first + arguments.episodes)
    jobs = [
        Job(arguments.agent, task, obj, arguments.split, tuple(seeds[start : start + CHUNK]))
        for task in arguments.tasks
        for obj in arguments.objects or ()
        for start in range(0, len(seeds), CHUNK)
    ]
    records, _ = run_jobs(jobs, arguments.output / FILES[0], arguments.workers, play, "chunks")
    lines = rows(records)
    print(table(lines))
    settings = {
        "agent": arguments.agent,
        "split": arguments.split,
        "episodes": arguments.episodes,
        "first_env_seed": first,
        "wall_s": round(time.perf_counter() - begin, 1),
    }
    report.write_json(report.summary(lines, settings, None), arguments.output / FILES[1])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        run(tyro.cli(Arguments, args=arguments, description=Arguments.__doc__))
    except (BenchmarkError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
