"""Run agents on real environments: episodes over worker processes, each seed for every agent.

A benchmark is a list of cells (agent, task, object, goal) times a list of seeds. Workers are
processes of one thread each; the parent appends every finished episode to a JSONL file at once, so
that a failure loses nothing that was finished.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from jepa_gym import TASKS
from jepa_gym.agents import MPC_PREFIX, make_agent
from jepa_gym.agents.planners import PLANNERS, make_planner

if TYPE_CHECKING:
    from jepa_gym.agents.base import Agent
    from jepa_gym.agents.mpc import PlanRecord

HELD_OUT_SEEDS = 1_000_000
"""First environment seed of the benchmarks; training data comes from the seeds below it."""
AGENTS = ("random", "scripted", "sac", *(f"{MPC_PREFIX}{planner}" for planner in PLANNERS))
"""Who can act: `make_cell_agent`."""
GRIPPER_WEIGHT = 1.0
"""Weight of the proprioceptive goal term in the rows "image+gripper"."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BenchmarkError(RuntimeError):
    """A benchmark could not go on; finished episodes are kept."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table."""

    agent: str
    task: str
    object: str
    goal: str = "image"
    """`image`, `image+gripper` with the proprioceptive goal term, or `state` (no image)."""

    def __str__(self) -> str:
        return f"{self.agent} on {self.task} {self.object} ({self.goal})"


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to run."""

    cell: Cell
    seed: int
    """Seed of the environment's reset."""
    checkpoint: str
    """World model of the planning agents, or the policy of sac."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of `gym.make` beside the object: what the world model expects to see."""
    film: bool = False
    """Keep what a video needs."""

    def __str__(self) -> str:
        return f"{self.cell}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Film:
    """What a video of one episode needs; T frames, the start included."""

    goals: np.ndarray
    """(T, Y, X, 3) uint8, the goal image that was active."""
    frames: np.ndarray
    """(T, Y, X, 3) uint8, the execution."""
    plans: list[PlanRecord]
    """What was imagined before each of the T - 1 actions; empty for agents without a model."""
    cell: Cell
    result: dict[str, Any]


def run_episode(job: Job) -> tuple[dict[str, Any], Film | None]:
    """Run one episode.

    Args:
        job: What to run.

    Returns:
        The episode's record (JSON types), and its film if the job asks for one.
    """
    cell = job.cell
    env = environment(cell.task, cell.object, json.dumps(job.env_kwargs, sort_keys=True))
    agent = make_cell_agent(cell, env, job)
    observation, info = env.reset(seed=job.seed)
    shown, infos, plans, seconds = [observation], [info], [], []
    memory, done = None, False
    while not done:
        begin = time.perf_counter()
        action, memory = agent.predict(observation, memory, episode_start=len(infos) == 1)
        seconds.append(time.perf_counter() - begin)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        shown.append(observation)
        infos.append(info)
        if getattr(agent, "last_plan", None) is not None:
            plans.append(agent.last_plan)
    distances = [float(info["distance_m"]) for info in infos]
    record = asdict(cell) | {
        "seed": job.seed,
        "success_at_end": bool(infos[-1]["is_success"]),
        "success_once": any(bool(info["is_success"]) for info in infos),
        "final_distance_m": distances[-1],
        "distances_m": [round(distance, 5) for distance in distances],
        "steps": len(seconds),
        "seconds_per_action": float(np.mean(seconds)),
    }
    if not job.film:
        return record, None
    goals = np.stack([view["goal_pixels"] for view in shown])
    frames = np.stack([view["pixels"] for view in shown])
    return record, Film(goals, frames, plans, cell, record)


def make_cell_agent(cell: Cell, env: gym.Env, job: Job) -> Agent:
    """Make the agent of one episode.

    Args:
        cell: Which agent, and how its goal is given.
        env: The environment it will act in.
        job: The episode.

    Returns:
        The agent; random and planning agents are seeded by the episode alone.

    Raises:
        ValueError: If the benchmark has no such agent.
    """
    if cell.agent == "random":
        return make_agent("random", action_space=env.action_space, seed=job.seed)
    if cell.agent == "scripted":
        return make_agent("scripted", env=env)
    if cell.agent == "sac":
        return make_agent("sac", path=job.checkpoint)
    if cell.agent.startswith(MPC_PREFIX):
        model = world_model(job.checkpoint)
        planner = make_planner(cell.agent.removeprefix(MPC_PREFIX))
        return make_agent(
            cell.agent,
            model=model,
            config=replace(planner.config, max_move_m=model.config.frame.max_move_m),
            gripper_weight=GRIPPER_WEIGHT if cell.goal == "image+gripper" else 0.0,
        )
    raise ValueError(f"This benchmark has no agent `{cell.agent}`.")


def run_jobs(
    jobs: Sequence[Any],
    output: Path,
    workers: int = 2,
    run: Callable[[Any], tuple[dict[str, Any], Film | None]] = run_episode,
    what: str = "episodes",
) -> tuple[list[dict[str, Any]], list[Film]]:
    """Run episodes in parallel and append each record to `output` when it is finished.

    Args:
        jobs: The episodes, or what else `run` takes; `str` names a job in error messages.
        output: JSONL file, appended to.
        workers: Number of processes of one thread each.
        run: What runs one job; importable by name.
        what: What the jobs are called.

    Returns:
        Records and films, in the order of the jobs.

    Raises:
        BenchmarkError: If an episode fails or a worker dies; finished episodes stay in `output`.
    """
    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # workers read it when they start
    done: dict[int, tuple[dict[str, Any], Film | None]] = {}
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)
    try:
        futures = {pool.submit(run, job): index for index, job in enumerate(jobs)}
        bar = tqdm(as_completed(futures), total=len(jobs), desc=what, unit=what[:-1])
        with output.open("a") as file, bar:
            for future in bar:
                index = futures[future]
                done[index] = _result(future, jobs[index], f"{len(done)} finished {what}", output)
                file.write(json.dumps(done[index][0]) + "\n")
                file.flush()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for variable, value in before.items():
            os.environ.pop(variable) if value is None else os.environ.update({variable: value})
    outcomes = [done[index] for index in range(len(jobs))]
    return [record for record, _ in outcomes], [film for _, film in outcomes if film]


def _result(
    future: Future[tuple[dict[str, Any], Film | None]], job: Any, finished: str, output: Path
) -> tuple[dict[str, Any], Film | None]:
    """Return a finished job's outcome or raise an error that names the job."""
    try:
        return future.result()
    except Exception as error:
        raise BenchmarkError(
            f"{job} failed with {type(error).__name__}: {error}. "
            f"The {finished} are kept in {output}."
        ) from error


def _one_thread() -> None:
    """Keep a worker to one thread."""
    import torch

    torch.set_num_threads(1)


@functools.cache
def environment(task: str, obj: str, env_kwargs: str) -> gym.Env:
    """Return this process's environment of a task and an object; `env_kwargs` are JSON."""
    return gym.make(TASKS[task], obj=obj, **json.loads(env_kwargs))


@functools.cache
def world_model(checkpoint: str) -> Any:
    """Return this process's world model."""
    from jepa_gym.world_model import WorldModel

    return WorldModel.from_pretrained(checkpoint)
