"""Goals in words: `python benchmarks/instructions.py`.

The same held-out episodes are told in words the training knows, in words that it never saw, by the
latent of the most similar recorded scene after such an instruction (`--data`), and by the true
picture of what is asked for. Success at the end: the hand within 4 cm of a place that satisfies the
instruction; to grasp, the object held; to lift, held and 4 cm clear of the table. The simulator
judges. Under `results/instructions/`: `episodes.jsonl`, `summary.json`, `table.md`.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.agents import make_agent
from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, environment, world_model
from jepa_gym.benchmarks.intervals import wilson
from jepa_gym.benchmarks.options import at_least, known_names
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.commands import run_command
from jepa_gym.envs.physics.workbench import WORKSPACE_HIGH_M, WORKSPACE_LOW_M
from jepa_gym.files import atomic_write
from jepa_gym.instructions import BESIDE, MOVES, TEMPLATES, Region, held_out, region

_LOG = logging.getLogger(__name__)

NEAR_M = 0.04
"""A hand this near to a place that satisfies an instruction satisfies it, too."""
ASKED = {"reach": (*BESIDE, *MOVES), "grasp": ("grasp",), "lift": ("lift",)}
"""Rows of the table -> the kinds of instruction in them."""
GOALS = ("words", "new words", "retrieved", "image")
START = {"start_distance_m": (0.12, 0.28)}
"""How far from the grasp point the hand starts in the row `reach`."""


@dataclass(frozen=True)
class Arguments:
    """Tell an agent in words what to do, and measure how often it is done."""

    rows: tuple[str, ...] = tuple(ASKED)
    """What is asked for: reach (a place of the hand), grasp, lift."""
    goals: tuple[str, ...] = ("words", "new words", "image")
    """How: words, new words (never seen in training), retrieved (needs `data`), image (the true
    picture)."""
    objects: tuple[str, ...] = ("box", "cup")
    """With what, by turns."""
    agent: str = "mpc-cem"
    """Who acts towards the goal: an agent on latents."""
    episodes: int = 50
    """Episodes of each row and goal."""
    seed: int = 0
    """First held-out seed."""
    checkpoint: str = "default"
    """World model with an instruction model beside it."""
    data: Path | None = None
    """Scenes of `jepa-gym instructed-scenes`, for `retrieved`."""
    output: Path = Path("results/instructions")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder that were made with another model, version or environment."""
    workers: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        """Check ranges and names.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        from jepa_gym.envs.physics.objects import OBJECTS

        at_least(self, episodes=1, seed=0, workers=1)
        known_names("rows", self.rows, ASKED)
        known_names("goals", self.goals, GOALS)
        known_names("objects", self.objects, OBJECTS)
        if "retrieved" in self.goals and self.data is None:
            raise ValueError("`retrieved` needs `data`: scenes of `jepa-gym instructed-scenes`")


@dataclass(frozen=True, slots=True)
class Job:
    """One episode."""

    row: str
    goal: str
    object: str
    agent: str
    seed: int
    checkpoint: str
    data: Path | None = None

    @property
    def identity(self) -> Record:
        """What tells it from all others."""
        return {k: v for k, v in asdict(self).items() if k not in ("checkpoint", "data")}

    def __str__(self) -> str:
        return f"{self.row} by {self.goal}, {self.object}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for in an episode."""

    kind: str
    place: Region | None
    """Where the hand shall be, if the instruction is about that."""

    def satisfied(self, env: Any, info: dict[str, Any]) -> bool:
        """Return whether the present state of an environment satisfies it."""
        if self.place is not None:
            return self.place.distance_m(env.arm.state()[:3]) <= NEAR_M
        return bool(info["is_held"] if self.kind == "grasp" else info["is_success"])


def task_of(env: Any, kind: str) -> Task:
    """Return what an instruction asks for in the present state of a grasp environment."""
    if kind in (*BESIDE, *MOVES):
        return Task(kind, region(kind, env.arm.state()[:3], env.grasp_point()))
    return Task(kind, None)


def draw_kind(env: Any, row: str, seed: int) -> str:
    """Return the kind of instruction of an episode that has just been reset; it can be followed."""
    hand, grasp = env.arm.state()[:3], env.grasp_point()

    def fits(kind: str) -> bool:
        if kind not in (*BESIDE, *MOVES):
            return True
        place = region(kind, hand, grasp).centre
        inside = (place >= WORKSPACE_LOW_M).all() and (place <= WORKSPACE_HIGH_M).all()
        apart = place - env.object_position()
        return bool(inside and (np.linalg.norm(apart[:2]) > 0.07 or apart[2] > 0.06))

    return str(np.random.default_rng((seed, 7)).choice([k for k in ASKED[row] if fits(k)]))


def sentence_of(kind: str, obj: str, seed: int, new_words: bool) -> str:
    """Return how an episode is told."""
    rng = np.random.default_rng((seed, 8))
    known = TEMPLATES[kind][:-1]
    template = held_out(kind) if new_words else known[int(rng.integers(len(known)))]
    return template.format(obj)


def run_job(job: Job) -> Record:
    """Run one episode.

    Returns:
        `kind`, `told` (the sentence, or how else), `success_at_end`, and `distance_m` from the
        nearest place that satisfies it, where it is about that.
    """
    env = environment(job.checkpoint, "grasp", obj=job.object, protocol="one", obs_mode="both")
    core: Any = env.unwrapped
    observation, info = env.reset(seed=job.seed, options=START if job.row == "reach" else None)
    kind = draw_kind(core, job.row, job.seed)
    task, told = task_of(core, kind), job.goal
    model: Any = world_model(job.checkpoint)
    if job.goal.endswith("words"):
        told = sentence_of(kind, job.object, job.seed, job.goal == "new words")
        agent: Any = make_agent("instructed", model=model, agent=job.agent)
        more: dict[str, Any] = {"instruction": told}
    else:
        agent = make_agent(job.agent, model=model)
        if job.goal == "image":
            more = {"goal_pixels": true_picture(core, kind)}
        else:
            assert job.data is not None
            seen = model.encode(observation["pixels"][None, None])[0, 0]
            more = {"desired_goal": retrieve(job.data, job.checkpoint, kind, seen)}
    memory, done, first = None, False, True
    while not done:
        shown = {"observation": observation["observation"], "pixels": observation["pixels"]} | more
        if "desired_goal" in more:
            latent = model.encode(shown.pop("pixels")[None, None])[0, 0]
            shown["achieved_goal"] = latent.float().cpu().numpy()
        action, memory = agent.predict(shown, memory, episode_start=first)
        observation, _, terminated, truncated, info = env.step(action)
        done, first = terminated or truncated, False
    distance = None if task.place is None else task.place.distance_m(core.arm.state()[:3])
    return {
        "kind": kind,
        "told": told,
        "success_at_end": task.satisfied(core, info),
        "distance_m": distance if distance is None else round(distance, 4),
    }


def true_picture(env: Any, kind: str) -> np.ndarray:
    """Return the picture (Y, X, 3) of a state that satisfies an instruction; nothing changes."""
    from jepa_gym.training.collection.instructed_scenes import follow

    before = env.get_state()
    try:
        if not follow(env, kind):
            raise ValueError(f"the instruction {kind!r} makes no sense in this state")
        return env.frame()
    finally:
        env.set_state(before)


def retrieve(folder: Path, checkpoint: str, kind: str, seen: Any) -> np.ndarray:
    """Return the goal latent (N, D) of the recorded scene that looked most like a frame.

    Args:
        folder: Scenes of `jepa-gym instructed-scenes`.
        checkpoint: The world model.
        kind: Only scenes after such an instruction.
        seen: (N, D), the frame's latent.
    """
    from jepa_gym.instructions import KINDS

    scenes = _scenes(folder, checkpoint)
    rows = np.flatnonzero(scenes.kinds == KINDS.index(kind))
    starts = scenes.start[scenes.scene[rows]].float()
    nearest = int((starts - seen.cpu().float()).abs().mean((1, 2)).argmin())
    return scenes.goals[rows[nearest]].float().numpy()


@functools.cache
def _scenes(folder: Path, checkpoint: str) -> Any:
    from jepa_gym.checkpoint.beside import encoder_hash
    from jepa_gym.training.recipes.instruct import read_scenes

    return read_scenes(folder, encoder_hash(world_model(checkpoint)))["train"]


def jobs_of(arguments: Arguments) -> list[Job]:
    """Return the episodes; every goal is tried on the same ones."""
    return [
        Job(
            row, goal, arguments.objects[number % len(arguments.objects)], arguments.agent,
            HELD_OUT_SEEDS + arguments.seed + number, arguments.checkpoint,
            arguments.data if goal == "retrieved" else None,
        )
        for row in arguments.rows
        for goal in arguments.goals
        for number in range(arguments.episodes)
    ]  # fmt: skip


def rows_of(records: Sequence[Record]) -> list[Record]:
    """Return success with its 95 % Wilson interval, for each row and goal, and by kind."""
    found = []
    for (row, goal), mine in report.group(records, ("row", "goal")).items():
        wins = sum(record["success_at_end"] for record in mine)
        kinds = {
            kind: [sum(r["success_at_end"] for r in group), len(group)]
            for (kind,), group in report.group(mine, ("kind",)).items()
        }
        found.append(
            {
                "row": row,
                "goal": goal,
                "episodes": len(mine),
                "success": wins / len(mine),
                "ci95": list(wilson(wins, len(mine))),
                "kinds": kinds,
            }
        )
    return found


def table(rows: Sequence[Record]) -> str:
    """Return the rows as text."""
    lines = [("asked for", "told by", "episodes", "success", "95 %")]
    for row in rows:
        low, high = (f"{100 * end:.0f}" for end in row["ci95"])
        success = f"{100 * row['success']:.0f} %"
        lines.append((row["row"], row["goal"], str(row["episodes"]), success, f"{low}-{high}"))
    return aligned(lines)


def run(arguments: Arguments) -> list[Record]:
    """Run the episodes, write the files and print the table.

    Returns:
        The table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, output = time.perf_counter(), arguments.output
    jobs = jobs_of(arguments)
    settings = settings_of(arguments.checkpoint)
    with Results(output, "episodes.jsonl", settings, arguments.overwrite) as results:
        run_jobs(jobs, results, run_job, arguments.workers)
        rows = rows_of(results.ordered([job.identity for job in jobs]))
        asked = report.arguments_of(arguments, begin)
        write_json(report.summary(rows, results.settings, asked), output / "summary.json")
        with atomic_write(output / "table.md") as temporary:
            temporary.write_text(table(rows) + "\n")
    print(table(rows))
    _LOG.info(f"{len(jobs)} episodes, {asked['wall_s']:.0f} s; results in {output}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
