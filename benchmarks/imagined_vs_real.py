"""Does imagination tell how good a policy is? `python benchmarks/imagined_vs_real.py`.

Every policy plays the same held-out episodes twice, from the same picture: in the simulator, and in
`JEPALatent-v0`, where a success detector judges. Policies that read the simulator's state cannot
act in imagination; there their real actions are imagined. Under `results/imagined_vs_real/` are
`summary.json` (per task the correlation over policies, rank violations, false successes),
`policies.png` (imagined against real success) and `drift.png` (how far imagined latents are from
real ones, by step and by what the hand does). Given again it goes on where it stopped.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from jepa_gym.agents import MPC_PREFIX, make_agent
from jepa_gym.agents.base import Agent, spawned_generator
from jepa_gym.agents.planners import make_planner
from jepa_gym.benchmarks import report
from jepa_gym.benchmarks.agreement import agreement, rates
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, NOT_SHOWN, environment, world_model
from jepa_gym.benchmarks.imagined import imagine
from jepa_gym.benchmarks.intervals import wilson
from jepa_gym.benchmarks.options import at_least, fill, known_names
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import settings_of
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.commands import run_command
from jepa_gym.files import atomic_write
from jepa_gym.latent.rewards import energies

_LOG = logging.getLogger(__name__)

EPISODES, QUICK_EPISODES = 30, 4
TASKS_SHOWN = ("reach", "grasp")
FREE, TOUCHING, HOLDING = "free", "touching", "holding"
KINDS = (FREE, TOUCHING, HOLDING)
"""What the hand does after a step: touches the object with no finger, with one, with both."""
SMALL = {"samples": 8, "iterations": 1}


@dataclass(frozen=True, slots=True)
class Policy:
    """One of the policies that are compared."""

    agent: str
    """Name of a registered agent."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `make_agent`."""
    planner: Mapping[str, int] = field(default_factory=dict)
    """What is changed in the planner's configuration."""
    mistakes: float = 0.0
    """Share of its steps that are random translations instead."""


ALONE = {"proposals": False}
POLICIES: dict[str, Policy] = {
    "hold-still": Policy("hold-still"),
    "random": Policy("random"),
    "smooth-noise": Policy("smooth-noise"),
    "scripted": Policy("scripted"),
    "scripted-noisy": Policy("scripted-noisy", {"noise": 0.3, "mistake_rate": 0.25}),
    "gc-idm": Policy("gc-idm"),
    "gc-idm, 1 in 4 random": Policy("gc-idm", mistakes=0.25),
    "gc-idm, 1 in 2 random": Policy("gc-idm", mistakes=0.5),
    "imagined-policy": Policy("imagined-policy"),
    "mpc-cem": Policy("mpc-cem"),
    "mpc-cem, 1 in 4 random": Policy("mpc-cem", mistakes=0.25),
    "mpc-cem alone": Policy("mpc-cem", ALONE),
    "mpc-cem alone, 8 candidates": Policy("mpc-cem", ALONE, {**SMALL, "top_k": 3}),
    "mpc-mppi": Policy("mpc-mppi"),
    "mpc-icem alone": Policy("mpc-icem", ALONE),
    "mpc-random alone, 8 candidates": Policy("mpc-random", ALONE, SMALL),
}
"""Policies of every quality; `alone` is the search without an inverse model's proposals."""


@dataclass(frozen=True)
class Arguments:
    """Compare imagined with real success, over policies of every quality."""

    tasks: tuple[str, ...] = TASKS_SHOWN
    """What to do: reach, grasp, reach-with-object, pick-place."""
    policies: tuple[str, ...] = tuple(POLICIES)
    """Which policies."""
    obj: str = "box"
    """With what."""
    split: str = "plain"
    """How episodes look: plain, or a split of docs/tasks.md."""
    episodes: int | None = None
    """Episodes of each policy: 30, with --quick 4."""
    seed: int = 0
    """First held-out seed; every policy meets the same episodes."""
    checkpoint: str = "default"
    """World model, as `WorldModel.from_pretrained` takes it."""
    output: Path = Path("results/imagined_vs_real")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder that were made with another model, version or environment."""
    workers: int = 2
    """Processes of one thread each."""
    quick: bool = False
    """A look in a few minutes."""

    def __post_init__(self) -> None:
        """Check ranges and names, and fill in what was not given.

        Raises:
            ValueError: If a number is out of its range or a name is unknown.
        """
        from jepa_gym import TASKS
        from jepa_gym.envs.physics.objects import OBJECTS
        from jepa_gym.envs.splits import SPLITS

        fill(self, episodes=QUICK_EPISODES if self.quick else EPISODES)
        at_least(self, episodes=1, seed=0, workers=1)
        known_names("tasks", self.tasks, TASKS)
        known_names("policies", self.policies, POLICIES)
        known_names("obj", [self.obj], OBJECTS)
        known_names("split", [self.split], ("plain", *SPLITS))


@dataclass(frozen=True, slots=True)
class Job:
    """One episode of one policy, real and imagined."""

    task: str
    object: str
    split: str
    policy: str
    seed: int
    checkpoint: str

    @property
    def identity(self) -> Record:
        """What tells it from all others."""
        names = ("task", "object", "split", "policy", "seed")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        return f"{self.policy}, {self.task} {self.object} {self.split}, seed {self.seed}"


class Disturbed:
    """An agent some of whose moves are random translations; the same whenever it is made anew.

    Args:
        agent: What acts else.
        env: Has the action space of the random moves.
        rate: Share of random moves.
        seed: Of the draws.
    """

    def __init__(self, agent: Agent, env: gym.Env, rate: float, seed: int) -> None:
        self.agent, self.space, self.rate = agent, env.action_space, rate
        self._generator = spawned_generator(seed)

    def predict(self, *arguments: Any, **named: Any) -> tuple[np.ndarray, Any]:
        """Act as `Agent.predict`."""
        action, state = self.agent.predict(*arguments, **named)
        drawn, moves = self._generator.random(), np.zeros_like(action)
        moves[:3] = self._generator.uniform(self.space.low[:3], self.space.high[:3])
        return (moves if drawn < self.rate else action), state


def make_policy(job: Job, env: gym.Env) -> Agent | Disturbed:
    """Make a job's policy; its draws depend on the seed alone."""
    policy, model = POLICIES[job.policy], world_model(job.checkpoint)
    arguments = dict(policy.arguments)
    if policy.agent.startswith(MPC_PREFIX):
        own = make_planner(policy.agent.removeprefix(MPC_PREFIX)).config
        bound = {"max_move_m": model.config.frame.max_move_m}
        arguments["config"] = replace(own, **{**policy.planner, **bound})
    if policy.agent not in NOT_SHOWN:
        arguments["model"] = model
    elif policy.agent.startswith("scripted"):
        arguments["env"] = env
    elif policy.agent != "hold-still":
        arguments["action_space"] = env.action_space
    if policy.agent not in ("scripted", "hold-still", "gc-idm", "imagined-policy"):
        arguments["seed"] = job.seed
    agent = make_agent(policy.agent, **arguments)
    return Disturbed(agent, env, policy.mistakes, job.seed) if policy.mistakes else agent


@dataclass(frozen=True, slots=True)
class Played:
    """A real episode of T steps."""

    start: Mapping[str, np.ndarray]
    """The first observation."""
    frames: np.ndarray
    """(T + 1, Y, X, 3) uint8."""
    moves: np.ndarray
    """(T, 7), the changes of the state that happened."""
    success: list[bool]
    """After each step."""
    kinds: list[str]
    """Of `KINDS`, after each step."""


def play(env: gym.Env, policy: Agent | Disturbed, seed: int) -> Played:
    """Play a real episode."""
    from jepa_gym import poses

    observation, _ = env.reset(seed=seed)
    start, memory, done = observation, None, False
    frames, states = [observation["pixels"]], [observation["observation"]]
    success, kinds = [], []
    while not done:
        action, memory = policy.predict(observation, memory, episode_start=len(frames) == 1)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
        suite: Any = env.unwrapped
        apart, held = suite.stage.object_released(), suite.stage.object_held()
        frames.append(observation["pixels"])
        states.append(observation["observation"])
        success.append(bool(info["is_success"]))
        kinds.append(FREE if apart else HOLDING if held else TOUCHING)
    moved = torch.from_numpy(np.stack(states))
    moves = poses.difference(moved[:-1], moved[1:]).numpy()
    return Played(start, np.stack(frames), moves, success, kinds)


def run_job(job: Job) -> Record:
    """Play an episode in the simulator and in imagination.

    Returns:
        `real` and `imagined`, success after each step; `replayed`, the same where the moves that
        happened are imagined; `drift`, the energy between the latents of the replay and the real
        ones; `kinds`, what the hand did (JSON types).
    """
    model = world_model(job.checkpoint)
    env = environment(
        job.checkpoint, job.task, obj=job.object, protocol="one",
        split=None if job.split == "plain" else job.split,
    )  # fmt: skip
    played = play(env, make_policy(job, env), job.seed)
    reads_state = POLICIES[job.policy].agent.startswith("scripted")
    steps = len(played.moves)
    replayed, rolled = imagine(job.checkpoint, played.start, steps, moves=played.moves)
    imagined = replayed
    if not reads_state:
        imagined, _ = imagine(job.checkpoint, played.start, steps, make_policy(job, env))
    latents = model.encode(played.frames[None])[0].float().numpy()
    return {
        "real": played.success,
        "imagined": imagined,
        "replayed": replayed,
        "drift": [round(float(x), 5) for x in energies(rolled, latents[1:])],
        "moved": [round(float(x), 5) for x in energies(latents[:-1], latents[1:])],
        "kinds": played.kinds,
    }


def summarise(records: Sequence[Record]) -> Record:
    """Aggregate the episodes of each task.

    Args:
        records: Episode records with their identities.

    Returns:
        Task -> `policies` (name, episodes, real and imagined success at the end with intervals),
        the numbers of `agreement`, `false_success` and `missed` over all episodes, the same
        `by_horizon` of replays, and `drift` by step and by kind.
    """
    found = {}
    for (task,), mine in report.group(records, ("task",)).items():
        policies = [_policy_row(n, e) for (n,), e in report.group(mine, ("policy",)).items()]
        ends = rates([r["real"][-1] for r in mine], [r["imagined"][-1] for r in mine])
        steps = range(max(len(r["real"]) for r in mine))
        at = [[r for r in mine if len(r["real"]) > step] for step in steps]
        found[task] = {
            "policies": policies,
            **agreement([p["real"] for p in policies], [p["imagined"] for p in policies]),
            **ends,
            "by_horizon": [
                {"step": step + 1}
                | rates([r["real"][step] for r in some], [r["replayed"][step] for r in some])
                for step, some in enumerate(at)
            ],
            "drift": {
                "by_step": [float(np.mean([r["drift"][s] for r in at[s]])) for s in steps],
                "moved_by_step": [float(np.mean([r["moved"][s] for r in at[s]])) for s in steps],
                "by_kind": {kind: _drift_of(mine, kind) for kind in KINDS},
            },
        }
    return found


def _policy_row(name: str, episodes: Sequence[Record]) -> Record:
    number, row = len(episodes), {"policy": name, "episodes": len(episodes)}
    for world in ("real", "imagined"):
        wins = sum(episode[world][-1] for episode in episodes)
        row |= {world: wins / number, f"{world}_ci95": list(wilson(wins, number))}
    return row


def _drift_of(episodes: Sequence[Record], kind: str) -> Record:
    """Return the mean drift by step of the steps of a kind, None where there are none."""
    by_step = []
    for step in range(max(len(r["drift"]) for r in episodes)):
        values = [
            r["drift"][step]
            for r in episodes
            if len(r["kinds"]) > step and r["kinds"][step] == kind
        ]
        by_step.append(float(np.mean(values)) if values else None)
    return {"by_step": by_step, "steps": sum(r["kinds"].count(kind) for r in episodes)}


def table(found: Record) -> str:
    """Format the summary for the terminal."""
    lines = [("task", "policy", "n", "real", "imagined")]
    for task, one in found.items():
        for row in one["policies"]:
            real, imagined = (
                f"{row[w]:.0%} ({row[f'{w}_ci95'][0]:.0%} to {row[f'{w}_ci95'][1]:.0%})"
                for w in ("real", "imagined")
            )
            lines.append((task, row["policy"], str(row["episodes"]), real, imagined))
    texts = [aligned(lines), ""]
    for task, one in found.items():
        low, high = one["fisher95"] or (None, None)
        texts.append(
            f"{task}: Pearson {_text(one['pearson'])} ({_text(low)} to {_text(high)}), Spearman "
            f"{_text(one['spearman'])}, worst with one policy left out "
            f"{_text(one['worst_drop_one'])}, MMRV {_text(one['mmrv'])}; false success "
            f"{_text(one['false_success'])} of {one['failures']} real failures, missed "
            f"{_text(one['missed'])} of {one['successes']} real successes"
        )
    return "\n".join(texts)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def write_plots(found: Record, output: Path) -> None:
    """Draw imagined against real success, and drift by step and kind, one panel a task."""
    from matplotlib.figure import Figure

    for name, draw in (("policies.png", _draw_policies), ("drift.png", _draw_drift)):
        figure = Figure(figsize=(5.6 * len(found), 5), dpi=110, layout="constrained")
        axes = figure.subplots(1, len(found), squeeze=False)[0]
        for panel, (task, one) in zip(axes, found.items(), strict=True):
            draw(panel, task, one)
        with atomic_write(output / name) as file:
            figure.savefig(file)


def _draw_policies(panel: Any, task: str, one: Record) -> None:
    panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for index, row in enumerate(one["policies"]):
        spread = {}
        for axis, world in (("xerr", "real"), ("yerr", "imagined")):
            low, high = row[f"{world}_ci95"]
            spread[axis] = [[max(0.0, row[world] - low)], [max(0.0, high - row[world])]]
        panel.errorbar(
            row["real"], row["imagined"], **spread, color=f"C{index % 10}", elinewidth=0.6,
            marker="osD^v"[index // 10], label=row["policy"],
        )  # fmt: skip
    panel.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), aspect="equal", xlabel="success, simulator")
    told = f"r = {_text(one['pearson'])}, MMRV {_text(one['mmrv'])}"
    panel.set(ylabel="success, imagined", title=f"{task}: {told}")
    panel.legend(fontsize=6, loc="upper left")


def _draw_drift(panel: Any, task: str, one: Record) -> None:
    steps = np.arange(1, 1 + len(one["drift"]["by_step"]))
    for kind, colour in zip(KINDS, ("C0", "C1", "C2"), strict=True):
        told = one["drift"]["by_kind"][kind]
        values = [np.nan if x is None else x for x in told["by_step"]]
        if told["steps"]:
            panel.plot(steps, values, marker=".", color=colour, label=f"{kind} ({told['steps']})")
    panel.plot(steps, one["drift"]["moved_by_step"], color="0.6", label="real, one step apart")
    panel.set(
        title=task, xlabel="imagined steps", ylabel="energy to the real latent", ylim=(0, None)
    )
    panel.legend(fontsize=8)


def run(arguments: Arguments) -> Record:
    """Run the benchmark, write its files and print its table.

    Returns:
        The summary of each task.

    Raises:
        BenchmarkError: If an episode fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, first = time.perf_counter(), HELD_OUT_SEEDS + arguments.seed
    jobs = [
        Job(task, arguments.obj, arguments.split, policy, seed, arguments.checkpoint)
        for task in arguments.tasks
        for seed in range(first, first + (arguments.episodes or 0))
        for policy in arguments.policies
    ]
    settings = settings_of(arguments.checkpoint)
    output = arguments.output
    with Results(output, "episodes.jsonl", settings, arguments.overwrite) as results:
        run_jobs(jobs, results, run_job, arguments.workers)
        found = summarise(results.ordered([job.identity for job in jobs]))
        print(table(found))
        asked = report.arguments_of(arguments, begin)
        write_json(found | {"settings": results.settings, "run": asked}, output / "summary.json")
        write_plots(found, output)
    _LOG.info(f"{asked['wall_s']:.0f} s; results in {output}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
