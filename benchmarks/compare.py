"""Planning against learning, real against imagined: `python benchmarks/compare.py`.

All agents meet the same held-out episodes. Under `results/compare/` are `episodes.jsonl` (a line an
episode), `summary.json`, `table.md`, pictures (success with intervals; success against planning
time and against imagined candidates; interquartile means and performance profiles over tasks) and
`report.html`, one file with everything, videos included. Given again it goes on where it stopped.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.agents import AGENTS
from jepa_gym.agents.policy import learning_curve
from jepa_gym.benchmarks import compare_report, episodes, failures, reach_grasp, report
from jepa_gym.benchmarks.episodes import environment, make_cell_agent, run_episode
from jepa_gym.benchmarks.imagined import imagine
from jepa_gym.benchmarks.over_tasks import block_scores, bootstrap, holm, mcnemar
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.checkpoint.beside import BEHAVIOUR, INVERSE, POLICY
from jepa_gym.checkpoint.sources import locate
from jepa_gym.checkpoint.weights import open_weights
from jepa_gym.commands import run_command
from jepa_gym.files import parse_json

_LOG = logging.getLogger(__name__)

REFERENCE = "mpc-cem"
"""The agent that all others are compared with."""
COMPARED = (
    "random", "hold-still", "smooth-noise", "scripted", "scripted-noisy", "gc-idm",
    "imagined-policy", "simulator-mpc", "pixel-mpc", "mpc-cem", "mpc-icem", "mpc-mppi",
    "mpc-random", "mpc-gradient", "mpc-hybrid",
)  # fmt: skip
WORLDS = ("real", "imagined")
TRAINED = {"gc-idm": INVERSE, "bc-transformer": BEHAVIOUR, "imagined-policy": POLICY}
"""Agents that act by a network beside the world model."""


@dataclass(frozen=True)
class Arguments:
    """Compare agents over tasks, objects and splits, in the simulator and in imagination."""

    agents: tuple[str, ...] = COMPARED
    """Who acts, of the registered agents."""
    tasks: tuple[str, ...] = ("reach", "grasp")
    """What to do: reach, grasp, reach-with-object, pick-place."""
    objects: tuple[str, ...] = ("box",)
    """With what, of the catalogue."""
    splits: tuple[str, ...] = ("plain",)
    """How episodes look: plain, or a split of docs/tasks.md."""
    worlds: tuple[str, ...] = WORLDS
    """Where they act: real (the simulator), imagined (`JEPALatent-v0`, from the same pictures;
    agents that read the simulator's state act in the real one only)."""
    protocol: str = "one"
    """Which goal images are shown: published, suite, one."""
    episodes: int | None = None
    """Episodes a row: 200, with --quick 6."""
    seed: int = 0
    """First held-out seed; every agent meets the same episodes."""
    checkpoint: str = "default"
    """World model, as `WorldModel.from_pretrained` takes it."""
    policy: Path | None = None
    """File of the agents that act by a trained policy (policy, sac)."""
    curves: tuple[Path, ...] = (Path("sac-reach"),)
    """Policies of `jepa-gym train-rl`, files or shipped names, whose learning curves are drawn."""
    allow_pickle: bool = False
    """Open a zip of Stable-Baselines3 although that runs the code in it."""
    output: Path = Path("results/compare")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder that were made with another model, version or environment."""
    workers: int = 2
    """Processes of one thread each; with `--ray`, episodes that run at once in the cluster."""
    ray: bool = False
    """Share the episodes over the Ray cluster of RAY_ADDRESS, or a local one (extra `ray`)."""
    videos: bool = True
    """Film the first episode of every row, and photograph those that fail."""
    quick: bool = False
    """A look in some minutes."""

    def __post_init__(self) -> None:
        """Check ranges and names, and fill in what was not given.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        from jepa_gym.benchmarks.options import at_least, fill, known_names

        fill(self, episodes=6 if self.quick else 200)
        at_least(self, episodes=1, seed=0, workers=1)
        known_names("agents", self.agents, AGENTS)
        known_names("worlds", self.worlds, WORLDS)
        self.main_job()

    def main_job(self) -> reach_grasp.Arguments:
        """Return the same for the main job, which checks the rest and lists the real episodes."""
        return reach_grasp.Arguments(
            agents=self.agents,
            tasks=self.tasks,
            objects=self.objects,
            splits=self.splits,
            protocols=(self.protocol,),
            episodes=self.episodes,
            seed=self.seed,
            checkpoint=self.checkpoint,
            policy=self.policy,
            allow_pickle=self.allow_pickle,
            output=self.output,
            videos=self.videos,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One episode in one of the worlds."""

    world: str
    episode: episodes.Job

    @property
    def identity(self) -> Record:
        """What tells it from all others."""
        return {"world": self.world} | self.episode.identity

    def __str__(self) -> str:
        return f"{self.episode}, {self.world}"


def jobs_of(arguments: Arguments) -> list[Job]:
    """Return the episodes, both worlds of each beside each other."""
    return [
        Job(world, replace(job, film=None, photo=None) if world == "imagined" else job)
        for job in reach_grasp.make_jobs(arguments.main_job())
        for world in arguments.worlds
        if world == "real" or episodes.NOT_SHOWN.get(job.cell.agent) != episodes.PRIVILEGED
    ]


def run_job(job: Job) -> Record:
    """Run one episode; imagined ones have no distances and no reasons of failure."""
    if job.world == "real":
        return run_episode(job.episode)
    cell = job.episode.cell
    env = environment(
        job.episode.checkpoint,
        cell.task,
        obj=cell.object,
        split=None if cell.split == "plain" else cell.split,
        protocol=cell.protocol,
        goal_schedule=cell.schedule,
        obs_mode="both",
    )
    start, info = env.reset(seed=job.episode.seed)
    agent, steps = make_cell_agent(env, job.episode), env.spec.max_episode_steps
    begin = time.perf_counter()
    success, _ = imagine(job.episode.checkpoint, start, steps, agent)
    seconds = time.perf_counter() - begin
    return {
        "goal": episodes.shown_to(cell, agent, info),
        "success_at_end": success[-1],
        "success_once": any(success),
        "steps_to_success": 1 + success.index(True) if any(success) else None,
        "path_m": None,
        "failure": None,
        "final_distance_m": None,
        "distances_m": None,
        "steps": len(success),
        "evaluations": None,
        "seconds_per_action": seconds / steps,
    }


def rows_of(records: Sequence[Record], costs: Mapping[str, Record]) -> list[Record]:
    """Aggregate the episodes of each agent, task, object and split, in each world.

    Args:
        records: Episode records with their identities.
        costs: What training cost, as `training_costs` tells it.

    Returns:
        Rows as `report.rows` makes them, with `world`, the medians of `steps_to_success` and
        `path_m`, and what training cost.
    """
    found = []
    for (world,), mine in report.group(records, ("world",)).items():
        groups = report.group(mine, report.CELL).values()
        for row, group in zip(report.rows(mine), groups, strict=True):
            reached = [e["steps_to_success"] for e in group if e["steps_to_success"] is not None]
            paths = [e["path_m"] for e in group if e["path_m"] is not None]
            more = {
                "world": world,
                "steps_to_success": float(np.median(reached)) if reached else None,
                "path_m": float(np.median(paths)) if paths else None,
            }
            found.append(row | more | costs.get(row["agent"], {}))
    return found


def training_costs(checkpoint: str, agents: Sequence[str]) -> dict[str, Record]:
    """Return what training an agent cost beside the world model, as the cards tell it.

    Returns:
        Agent -> `recorded_episodes`, real ones that the world model was trained on, and
        `train_minutes`, the world model's included; an agent that is not trained is left out.
    """
    folder = locate(checkpoint)
    model = _model_cost(folder)
    found = {}
    for name in agents:
        if name.startswith("mpc-") and model:
            found[name] = model
        elif name in TRAINED and (folder / TRAINED[name].file).is_file():
            card = parse_json(open_weights(folder / TRAINED[name].file).metadata["card"])
            minutes = model.get("train_minutes", 0) + card["wall time, minutes"]
            found[name] = model | {"train_minutes": round(minutes, 1)}
    return found


def _model_cost(folder: Path) -> Record:
    """Read from a model's card what it was trained on; nothing where it does not tell."""
    card = (folder / "README.md").read_text() if (folder / "README.md").is_file() else ""
    minutes = re.search(r"\*\*wall time, minutes\*\*: ([\d.]+)", card)
    number = re.search(r"\*\*episodes\*\*: (\d+)", card)
    cost: Record = {"train_minutes": float(minutes[1])} if minutes else {}
    return cost | ({"recorded_episodes": int(number[1])} if number else {})


def paired_tests(records: Sequence[Record]) -> list[Record]:
    """Compare every agent with the reference on the same real episodes.

    Returns:
        For every agent, task, object and split: the paired `difference` of the agent from the
        reference with `ci95`, the number of `pairs`, McNemar's exact `p` and `p_holm`, corrected
        for the number of all these comparisons.
    """
    real = [record for record in records if record["world"] == "real"]
    found = []
    for where, mine in report.group(real, ("task", "object", "split")).items():
        agents = {name: group for (name,), group in report.group(mine, ("agent",)).items()}
        for name, group in agents.items():
            paired = report.pair(agents.get(REFERENCE, []), group)
            if name == REFERENCE or paired is None:
                continue
            first, second = (_by_seed(agents[one]) for one in (REFERENCE, name))
            seeds = sorted(first.keys() & second.keys())
            p = mcnemar([first[seed] for seed in seeds], [second[seed] for seed in seeds])
            place = dict(zip(("task", "object", "split"), where, strict=True))
            found.append(place | {"agent": name, "reference": REFERENCE} | paired | {"p": p})
    corrected = holm([one["p"] for one in found])
    return [one | {"p_holm": p} for one, p in zip(found, corrected, strict=True)]


def _by_seed(group: Sequence[Record]) -> dict[int, bool]:
    return {record["seed"]: record["success_at_end"] for record in group}


def over_tasks(records: Sequence[Record]) -> list[Record]:
    """Return, for each agent, the interquartile mean of its real success over all tasks.

    Returns:
        `agent`, `iqm` with `ci95`, and `scores`, by task the success rates of parts of the
        episodes; only of agents that met everything.
    """
    real = [record for record in records if record["world"] == "real"]
    places = set(report.group(real, ("task", "object", "split")))
    found = []
    for (name,), mine in report.group(real, ("agent",)).items():
        groups = report.group(mine, ("task", "object", "split"))
        if set(groups) == places:
            scores = [
                block_scores([e["success_at_end"] for e in sorted(g, key=lambda e: e["seed"])])
                for g in groups.values()
            ]
            middle, low, high = bootstrap(scores)
            told = [one.tolist() for one in scores]
            found.append({"agent": name, "iqm": middle, "ci95": [low, high], "scores": told})
    return found


def _cell(row: Record) -> episodes.Cell:
    return episodes.Cell(**{name: row[name] for name in report.CELL})


def run(arguments: Arguments) -> list[Record]:
    """Run the comparison, write its files and print its table.

    Returns:
        The table's rows.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, output = time.perf_counter(), arguments.output
    jobs = jobs_of(arguments)
    acting = sorted({job.episode.cell.agent for job in jobs if job.episode.policy is not None})
    settings = settings_of(arguments.checkpoint, arguments.policy, acting, arguments.allow_pickle)
    with Results(output, "episodes.jsonl", settings, arguments.overwrite) as results:
        run_jobs(jobs, results, run_job, arguments.workers, ray=arguments.ray)
        records = results.ordered([job.identity for job in jobs])
        agents = list(dict.fromkeys(record["agent"] for record in records))
        rows = rows_of(records, training_costs(arguments.checkpoint, agents))
        tests, means = paired_tests(records), over_tasks(records)
        asked = report.arguments_of(arguments, begin)
        summary: dict[str, Any] = report.summary(rows, results.settings, asked)
        curves = {path.stem: learning_curve(path) for path in arguments.curves}
        summary |= {"tests": tests, "over_tasks": means, "learning_curves": curves}
        write_json(summary, output / "summary.json")
        photos = {reach_grasp.file_name(_cell(row)): row for row in rows if row["world"] == "real"}
        real = [record for record in records if record["world"] == "real"]
        failures.write_sheet(photos, real, output)
        compare_report.write(summary, output)
    print(compare_report.text_table(rows))
    _LOG.info(f"{len(records)} episodes, {asked['wall_s']:.0f} s; results in {output}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
