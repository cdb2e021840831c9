"""The main job: agents on the tasks of the suite, over the same held-out seeds.

`python benchmarks/reach_grasp.py` prints a table and writes, under `results/reach_grasp/`, one JSON
line an episode (`episodes.jsonl`), `summary.json`, `plot.png`, a video for every row, pictures of
what failed (`failures.png`) and all of it on one page (`report.html`). Given again it goes on where
it stopped; rows and episodes that are added later join those in the folder.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import gymnasium as gym

from jepa_gym import TASKS
from jepa_gym.agents import AGENTS, MPC_PREFIX
from jepa_gym.benchmarks import failures, report
from jepa_gym.benchmarks.episodes import (
    GRIPPER_WEIGHT,
    HELD_OUT_SEEDS,
    NOT_SHOWN,
    STARTS,
    Cell,
    Job,
    acts_by_policy,
    run_episode,
    shown_by,
    starts_far,
)
from jepa_gym.benchmarks.options import at_least, fill, known_names
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.run_report import write_report
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.commands import run_command

_LOG = logging.getLogger(__name__)

EPISODES, QUICK_EPISODES = 30, 4
PLAIN = "plain"
DEFAULT_OBJECTS = ("box", "cup")
PROTOCOLS = ("published", "suite", "one")
ALL_AGENTS = ("random", "hold-still", "scripted", "gc-idm", "mpc-cem")


@dataclass(frozen=True)
class Arguments:
    """Compare agents on the tasks of the suite, over the same held-out seeds."""

    agents: tuple[str, ...] | None = None
    """Who acts, of the registered agents: random, scripted (reads the simulator; it shows what is
    possible), mpc-cem (these are the default; with --all also hold-still and gc-idm), -icem, -mppi,
    -gradient, -random, -hybrid, sac, ..."""
    tasks: tuple[str, ...] | None = None
    """What to do: reach and grasp (the default), reach-with-object, pick-place, or the id of any
    environment whose `info` has `is_success`."""
    objects: tuple[str, ...] | None = None
    """With what, of the catalogue: by default box and cup, and box for reaching, which only looks
    at the object."""
    splits: tuple[str, ...] | None = None
    """How episodes look: plain (the default), or a split of docs/tasks.md: train, camera, ..."""
    protocols: tuple[str, ...] | None = None
    """Which goal images planners are shown: published, suite, one. By default published, and for
    grasping suite (four images) beside it. Those that show the same run once."""
    schedules: tuple[Literal["time", "progress"], ...] = ("time",)
    """When the next of several goal images is shown."""
    starts: tuple[Literal["plain", "far"], ...] | None = None
    """How far the hand starts from its goal or object: plain (as the task has it, the default), or
    far: 20 to 30 cm, for reach, reach-with-object and grasp."""
    presets: tuple[Literal["default", "paper", "published"], ...] = ("default",)
    """Which agent mpc-cem is: ours; ours with the paper's budget; the published one. The others
    have only their default."""
    gripper_term: bool = False
    """Beside every row of a planner one whose cost also has the goal's gripper opening."""
    all: bool = False
    """Every task, object, split, protocol and start that the other flags do not choose (hours)."""
    episodes: int | None = None
    """Episodes a row: 30, with --quick 4."""
    seed: int = 0
    """First held-out seed; every agent meets the same episodes."""
    checkpoint: str = "default"
    """World model, as `WorldModel.from_pretrained` takes it."""
    policy: Path | None = None
    """File of the agents that act by a trained policy (policy, sac): of `jepa-gym train-rl`, a zip
    of Stable-Baselines3, or a shipped one by name: sac-reach."""
    allow_pickle: bool = False
    """Open a zip of Stable-Baselines3 although that runs the code in it."""
    output: Path = Path("results/reach_grasp")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder that were made with another model, version or environment."""
    workers: int = 2
    """Processes of one thread each."""
    videos: bool = True
    """Film the first episode of every row, and photograph those that fail."""
    quick: bool = False
    """A look in two minutes instead of ten."""

    def __post_init__(self) -> None:
        """Check ranges and names, and fill in what was not given.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        from jepa_gym.envs.physics.objects import OBJECTS
        from jepa_gym.envs.splits import SPLITS

        splits = (PLAIN, *SPLITS)
        fill(
            self,
            agents=ALL_AGENTS if self.all else ("random", "scripted", "mpc-cem"),
            episodes=QUICK_EPISODES if self.quick else EPISODES,
            tasks=tuple(TASKS) if self.all else ("reach", "grasp"),
            splits=splits if self.all else (PLAIN,),
            protocols=PROTOCOLS if self.all else None,
            starts=tuple(STARTS) if self.all else ("plain",),
        )
        at_least(self, episodes=1, seed=0, workers=1)
        known_names("agents", self.agents or (), AGENTS)
        known_names("tasks", self.tasks or (), (*TASKS, *gym.registry))
        known_names("splits", self.splits or (), splits)
        known_names("protocols", PROTOCOLS if self.protocols is None else self.protocols, PROTOCOLS)
        known_names("objects", OBJECTS if self.objects is None else self.objects, OBJECTS)
        known_names("schedules", self.schedules, ("time", "progress"))
        known_names("starts", self.starts or (), STARTS)
        acting = [name for name in self.agents or () if acts_by_policy(name)]
        if acting and self.policy is None:
            raise ValueError(
                f"The agent {acting[0]} needs `--policy`, a file of `jepa-gym train-rl`."
            )


def cells(arguments: Arguments) -> list[Cell]:
    """Return the rows to run, in the order of the table.

    Raises:
        ValueError: If no object belongs to a split.
    """
    found = [
        cell
        for task in arguments.tasks or ()
        for split, objects in _objects(arguments, task)
        for obj in objects
        for start in arguments.starts or ()
        if start == PLAIN or starts_far(TASKS.get(task, task))
        for agent in arguments.agents or ()
        for cell in _rows_of(arguments, Cell(agent, task, obj, split, start=start))
    ]
    return list(dict.fromkeys(found))


def _objects(arguments: Arguments, task: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every split with the objects that a task runs with."""
    from jepa_gym.envs.physics.objects import OBJECTS
    from jepa_gym.envs.splits import split_objects

    if not shown_by(TASKS.get(task, task)):
        yield PLAIN, ("-",)
        return
    for split in arguments.splits or ():
        possible = tuple(OBJECTS) if split == PLAIN else split_objects(split)
        wanted = arguments.objects or (possible if arguments.all else DEFAULT_OBJECTS)
        objects = tuple(name for name in wanted if name in possible)
        if not objects and arguments.objects:
            raise ValueError(f"The split {split} has the objects {possible}, got {wanted}.")
        objects = objects or possible
        chosen = arguments.all or arguments.objects
        yield split, objects if chosen or task != "reach" else objects[:1]


def _rows_of(arguments: Arguments, cell: Cell) -> Iterator[Cell]:
    """Yield the rows of one agent in one task: with every protocol, for those that look at it."""
    protocols = arguments.protocols or ("published", "suite")[: 1 + (cell.task == "grasp")]
    if cell.agent in NOT_SHOWN or acts_by_policy(cell.agent):
        protocols = protocols[:1]
    distinct = shown_by(TASKS.get(cell.task, cell.task), protocols) or {"published": 1}
    for protocol, images in distinct.items():
        for schedule in arguments.schedules if images > 1 else ("time",):
            for preset in arguments.presets if cell.agent == "mpc-cem" else ("default",):
                row = replace(cell, protocol=protocol, schedule=schedule, budget=preset)
                yield row
                if arguments.gripper_term and cell.agent.startswith(MPC_PREFIX):
                    yield replace(row, gripper_term=True)


def make_jobs(arguments: Arguments) -> list[Job]:
    """Return the episodes, task by task and there seed by seed, the first of every row filmed."""
    policy = None if arguments.policy is None else str(arguments.policy)
    first, films = HELD_OUT_SEEDS + arguments.seed, arguments.output / "videos"
    photos = arguments.output / failures.FOLDER
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells(arguments):
        groups.setdefault((cell.task, cell.object, cell.split, cell.start), []).append(cell)
    return [
        Job(
            cell,
            seed,
            arguments.checkpoint,
            policy if acts_by_policy(cell.agent) else None,
            allow_pickle=arguments.allow_pickle,
            film=films / f"{file_name(cell)}.mp4" if arguments.videos and seed == first else None,
            photo=photos / f"{file_name(cell)}_{seed}.png"
            if arguments.videos and cell.agent not in NOT_SHOWN
            else None,
        )
        for group in groups.values()
        for seed in range(first, first + (arguments.episodes or 0))
        for cell in group
    ]


def file_name(cell: Cell) -> str:
    """Return the name of a row's video, without its suffix."""
    parts = [str(part) for part in asdict(cell).values() if isinstance(part, str)]
    return "_".join(parts + ["gripper"] * cell.gripper_term).replace(":", "-").replace("/", "-")


def run(arguments: Arguments) -> list[Record]:
    """Run the benchmark, write its files and print its table.

    Args:
        arguments: What to run.

    Returns:
        The table's rows, those of earlier runs in the folder last.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, output = time.perf_counter(), arguments.output
    jobs = make_jobs(arguments)
    acting = sorted({job.cell.agent for job in jobs if job.policy is not None})
    settings = settings_of(arguments.checkpoint, arguments.policy, acting, arguments.allow_pickle)
    settings["gripper_weight"] = GRIPPER_WEIGHT
    with Results(output, "episodes.jsonl", settings, arguments.overwrite) as results:
        run_jobs(jobs, results, run_episode, arguments.workers)
        records = results.ordered([job.identity for job in jobs])
        rows = report.rows(records)
        compared = report.comparisons(records)
        print(report.table(rows), *report.comparison_lines(compared), sep="\n")
        report.write_plot(rows, records, output / "plot.png")
        photos = {file_name(Cell(**{name: row[name] for name in report.CELL})): row for row in rows}
        failures.write_sheet(photos, records, output)
        asked = report.arguments_of(arguments, begin)
        summary = report.summary(rows, results.settings, asked) | {"comparisons": compared}
        write_json(summary, output / "summary.json")
        page = write_report(output)
    _LOG.info(f"{len(records)} episodes, {asked['wall_s']:.0f} s; results in {output}, see {page}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
