"""One episode of one agent in one environment, as every benchmark of behaviour runs it."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium as gym
import numpy as np

from jepa_gym import TASKS, make_env
from jepa_gym.agents import AGENTS, MPC_PREFIX, make_agent
from jepa_gym.agents.planners import make_planner
from jepa_gym.agents.planners.cem import CEMConfig
from jepa_gym.benchmarks.results import Record
from jepa_gym.envs.tasks.options import START_DISTANCE
from jepa_gym.names import resolve

if TYPE_CHECKING:
    from jepa_gym.agents.base import Agent
    from jepa_gym.agents.mpc import PlanRecord

HELD_OUT_SEEDS = 1_000_000
"""First environment seed of the benchmarks; training data comes from the seeds below it."""
GRIPPER_WEIGHT = 1.0
"""Weight of the proprioceptive goal term in the rows "+gripper"."""
PRESETS = ("paper", "published")
"""Budgets that are presets of `MPCAgent`: ours with the paper's budget, and the published agent."""
PRIVILEGED = "simulator state"
"""What agents go by that read the simulator, and so act in the real world only."""
NOT_SHOWN = {
    "random": "-",
    "hold-still": "-",
    "smooth-noise": "-",
    "scripted": PRIVILEGED,
    "scripted-noisy": PRIVILEGED,
    "simulator-mpc": PRIVILEGED,
}
"""What agents that look at no goal image go by instead; a policy names its own."""
STARTS: dict[str, dict[str, Any]] = {"plain": {}, "far": {"start_distance_m": (0.20, 0.30)}}
"""How an episode starts: name -> options of the reset. The energy is nearly flat from 20 cm on."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the table."""

    agent: str
    task: str
    """A short name of `jepa_gym.TASKS` or the id of an environment."""
    object: str = "-"
    split: str = "plain"
    """How episodes look: a split of the suite, or the plain scene."""
    protocol: str = "published"
    """Which goal images are shown, see `FrankaEnv`."""
    schedule: str = "time"
    """When the next one is shown."""
    gripper_term: bool = False
    """Whether the planner's cost has the proprioceptive goal term."""
    budget: str = "default"
    """Name of the planner's budget, or one of `PRESETS`."""
    start: str = "plain"
    """How episodes start, one of `STARTS`."""

    def __str__(self) -> str:
        parts = [self.agent, self.task]
        parts += [x for x in (self.object, self.split) if x not in ("-", "plain")]
        parts += [] if self.start == "plain" else [f"from {self.start}"]
        extras = [self.protocol, f"by {self.schedule}"] + ["+gripper"] * self.gripper_term
        budget = "" if self.budget == "default" else f", {self.budget} candidates"
        return f"{' '.join(parts)} ({', '.join(extras)}{budget})"


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to run."""

    cell: Cell
    seed: int
    """Seed of the environment's reset."""
    checkpoint: str
    """World model whose frames the environment shows, and that planning agents plan with."""
    policy: str | None = None
    """File of a trained policy, for agents that act by one."""
    allow_pickle: bool = False
    """Open a policy that may run code."""
    planner: Mapping[str, int] = field(default_factory=dict)
    """What the cell's budget changes in the planner's configuration."""
    film: Path | None = None
    """Video to make of it."""
    photo: Path | None = None
    """Picture to make of it if it fails: goal, start and end."""

    @property
    def identity(self) -> Record:
        """What tells it from all other episodes."""
        return asdict(self.cell) | {"seed": self.seed}

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
    title: str
    distances_m: list[float]
    """(T,)."""


def run_episode(job: Job) -> Record:
    """Run one episode, and write its video if the job asks for one.

    Args:
        job: What to run.

    Returns:
        What came of it (JSON types).
    """
    cell = job.cell
    blind = cell.agent in NOT_SHOWN and job.film is None
    env = environment(
        job.checkpoint,
        cell.task,
        obj=cell.object,
        split=None if cell.split == "plain" else cell.split,
        protocol=cell.protocol,
        goal_schedule=cell.schedule,
        obs_mode="state" if blind else "both",
    )
    agent = make_cell_agent(env, job)
    observation, info = env.reset(seed=job.seed, options=STARTS[cell.start] or None)
    shown = shown_to(cell, agent, info)
    views, infos, plans, seconds = [observation], [info], [], []
    memory, done = None, False
    while not done:
        begin = time.perf_counter()
        action, memory = agent.predict(observation, memory, episode_start=len(infos) == 1)
        seconds.append(time.perf_counter() - begin)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        views.append(observation)
        infos.append(info)
        if (plan := getattr(agent, "last_plan", None)) is not None:
            plans.append(plan)
    distances = [round(float(info.get("distance_m", np.nan)), 5) for info in infos]
    if job.film is not None and "pixels" in observation:
        from jepa_gym.benchmarks.video import write_video

        goals, frames = (np.stack([v[key] for v in views]) for key in ("goal_pixels", "pixels"))
        write_video(Film(goals, frames, plans, str(cell), distances), job.film)
    if job.photo is not None and not infos[-1]["is_success"] and "pixels" in observation:
        from jepa_gym.benchmarks.failures import photograph

        shots = [observation["goal_pixels"], views[0]["pixels"], observation["pixels"]]
        photograph(shots, job.photo)
    known = np.isfinite(distances).all()
    hand = np.stack([view["observation"][:3] for view in views])
    searched = [int(np.isfinite(plan.energies).sum()) for plan in plans]
    return {
        "goal": shown,
        "success_at_end": bool(infos[-1]["is_success"]),
        "success_once": any(bool(info["is_success"]) for info in infos),
        "steps_to_success": next((i for i, info in enumerate(infos) if info["is_success"]), None),
        "path_m": float(np.linalg.norm(np.diff(hand, axis=0), axis=1).sum()),
        "failure": infos[-1].get("failure"),
        "final_distance_m": distances[-1] if known else None,
        "distances_m": distances if known else None,
        "steps": len(seconds),
        "evaluations": float(np.mean(searched)) if searched else None,
        "seconds_per_action": float(np.mean(seconds)),
    }


def shown_to(cell: Cell, agent: Agent, info: Mapping[str, Any]) -> str:
    """Return what the agent is shown of its goal, as the column "goal" has it."""
    if cell.agent in NOT_SHOWN:
        return NOT_SHOWN[cell.agent]
    policy = getattr(agent, "policy", None)
    if policy is not None and "goal_pixels" not in policy.observation_space.spaces:
        return "goal position"
    return info.get("goal_shown", "image") + " +gripper" * cell.gripper_term


def make_cell_agent(env: gym.Env, job: Job) -> Agent:
    """Make the agent of one episode.

    Args:
        env: The environment it will act in.
        job: The episode.

    Returns:
        The agent; random and planning agents are seeded by the episode alone.

    Raises:
        ValueError: If there is no such agent.
    """
    name, budget = job.cell.agent, job.cell.budget
    if name.startswith(MPC_PREFIX):
        model, preset = world_model(job.checkpoint), budget in PRESETS
        own = CEMConfig.preset(budget) if preset else make_planner(name[len(MPC_PREFIX) :]).config
        changes = {**job.planner, "max_move_m": model.config.frame.max_move_m}
        return make_agent(
            name,
            model=model,
            config=replace(own, **changes),
            gripper_weight=GRIPPER_WEIGHT if job.cell.gripper_term else 0.0,
            **({"preset": budget} if preset else {}),
        )
    offers: dict[str, Callable[[], Any]] = {
        "env": lambda: env,
        "action_space": lambda: env.action_space,
        "seed": lambda: job.seed,
        "path": lambda: job.policy,
        "allow_pickle": lambda: job.allow_pickle,
        "model": lambda: world_model(job.checkpoint),
    }
    takes = inspect.signature(resolve(AGENTS, "agent", name)).parameters
    return make_agent(name, **{key: offer() for key, offer in offers.items() if key in takes})


@functools.cache
def environment(checkpoint: str, task: str, **kwargs: Any) -> gym.Env:
    """Return this process's environment, as the checkpoint's model expects it.

    Args:
        checkpoint: The world model.
        task: A short name of `jepa_gym.TASKS` or the id of an environment.
        **kwargs: Arguments of the suite's tasks; other environments get the model if they take one.
    """
    model, env_id = world_model(checkpoint), TASKS.get(task, task)
    if shown_by(env_id):
        return make_env(model, task, **kwargs)
    takes = inspect.signature(env_class(env_id)).parameters
    return gym.make(env_id, **({"model": model} if "model" in takes else {}))


@functools.cache
def world_model(checkpoint: str) -> Any:
    """Return this process's world model."""
    from jepa_gym.world_model import WorldModel

    return WorldModel.from_pretrained(checkpoint)


def env_class(env_id: str) -> Callable[..., gym.Env]:
    """Return the class, or the function, that makes an environment.

    Raises:
        ValueError: If the id is not registered.
    """
    from gymnasium.envs.registration import load_env_creator

    try:
        entry = gym.spec(env_id).entry_point
    except gym.error.Error as error:
        raise ValueError(f"There is no environment `{env_id}`: {error}") from error
    return cast(Any, load_env_creator(entry) if isinstance(entry, str) else entry)


def shown_by(env_id: str, protocols: Iterable[str] = ("published",)) -> dict[str, int]:
    """Return those protocols that show other goal images than the ones before them.

    Args:
        env_id: Id of an environment.
        protocols: The protocols, in the order of the table.

    Returns:
        Protocol -> number of goal images; empty if it is no task of the suite, which alone has
        objects, splits and protocols.
    """
    from jepa_gym.envs.tasks.base import FrankaEnv

    task = env_class(env_id)
    if not (isinstance(task, type) and issubclass(task, FrankaEnv)):
        return {}
    distinct: dict[str, dict[str, int]] = {}
    for protocol in protocols:
        shown = task.shown_by(protocol)
        if all(list(shown) != list(earlier) for earlier in distinct.values()):
            distinct[protocol] = shown
    return {protocol: len(shown) for protocol, shown in distinct.items()}


def starts_far(env_id: str) -> bool:
    """Return whether a task can be told how far from its goal or object the hand starts."""
    return bool(shown_by(env_id)) and START_DISTANCE in env_class(env_id).OPTIONS


def acts_by_policy(agent: str) -> bool:
    """Return whether an agent acts by a trained policy, which it reads from a file."""
    if agent.startswith(MPC_PREFIX):
        return False
    return "path" in inspect.signature(resolve(AGENTS, "agent", agent)).parameters
