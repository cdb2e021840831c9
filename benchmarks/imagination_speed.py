"""Speed of imagined steps, as ratios in one run.

`python benchmarks/imagination_speed.py` steps `JEPALatent-v0`, as one vector environment and as so
many single ones in turn, with one thread. Then it takes all `cores`: for the vector environment and
for candidates, as planners imagine them, as threads; for `FrankaReach-v0` with pictures, at the
views, size and step of the model, as processes of one thread. All by turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

import jepa_gym  # noqa: F401  (registers the environments)
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.benchmarks.timing import Measurement, command
from jepa_gym.checkpoint.start_frames import read_starts

VECTOR, SINGLE, CANDIDATES, REAL = "vector", "single, in turn", "candidates", "real, pixels"
VECTOR_BAR = 5.0
REAL_BAR = 10.0


@dataclass(frozen=True)
class ImaginationSpeedConfig(Measurement):
    """Measure imagined steps per second against single and real environments."""

    checkpoint: str = "default"
    """Name or folder of the model."""
    envs: int = 64
    """Imagined environments."""
    steps: int = 8
    """Steps of each in a measurement; at most 10, so that no episode ends."""
    real_steps: int = 20
    """Steps of each real environment in a measurement; resets are left out of the count."""
    cores: int = 2
    """Threads of the imagination, and real environments, where they are compared."""
    seed: int = 0
    """Of episodes and actions."""

    QUICK = {"envs": 8, "steps": 3, "real_steps": 5, "rounds": 1}
    LEAST = {"envs": 1, "steps": 1, "real_steps": 1, "cores": 1}

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If a number is out of its range.
        """
        super().__post_init__()
        if self.steps > 10:
            raise ValueError(f"`steps` must be at most 10, got {self.steps}")


Stepper = Callable[[], tuple[int, float]]
"""Does its steps and returns their number, and seconds by the clock."""
EPISODE = 10
"""Steps after which a real environment is reset."""


def vector_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps one vector environment."""
    envs = gym.make_vec("JEPALatent-v0", num_envs=config.envs, model=model)
    actions = actions_for(config.seed, (config.steps, config.envs), envs.single_action_space)

    def step() -> tuple[int, float]:
        envs.reset(seed=config.seed)
        begin = time.perf_counter()
        for action in actions:
            envs.step(action)
        return actions.shape[0] * config.envs, time.perf_counter() - begin

    return step


def candidate_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what imagines as many candidate steps of one context, as planners do."""
    import torch

    starts, context = read_starts(model.folder), model.config.context_frames
    shown = np.stack([*[starts.frames[0]] * context, starts.goal_frames[0]])
    latents = model.encode(torch.from_numpy(shown)[None])
    states = torch.from_numpy(np.stack([starts.states[0]] * context))[None]
    start = model.prepare(latents[:, :context], states)
    bounds = np.array(model.config.action_bounds, np.float32)
    candidates = np.random.default_rng(config.seed).uniform(-1, 1, (config.envs, 1, 7)) * bounds
    actions = torch.from_numpy(candidates.astype(np.float32))[None]

    def step() -> tuple[int, float]:
        begin = time.perf_counter()
        for _ in range(config.steps):
            start.energy(actions, latents[:, context])
        return config.steps * config.envs, time.perf_counter() - begin

    return step


def single_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps as many single environments, one after the other."""
    envs = [gym.make("JEPALatent-v0", model=model) for _ in range(config.envs)]
    actions = actions_for(config.seed, (config.steps, config.envs), envs[0].action_space)

    def step() -> tuple[int, float]:
        for number, env in enumerate(envs):
            env.reset(seed=config.seed + number)
        begin = time.perf_counter()
        for action in actions:
            for env, own in zip(envs, action, strict=True):
                env.step(own)
        return actions.shape[0] * config.envs, time.perf_counter() - begin

    return step


def real_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps one simulator a core, with pictures as the model wants them."""
    kwargs = model.config.frame.env_kwargs()
    envs = gym.make_vec("FrankaReach-v0", num_envs=config.cores, obs_mode="both", **kwargs)
    actions = actions_for(config.seed, (config.real_steps, config.cores), envs.single_action_space)

    def step() -> tuple[int, float]:
        spent = 0.0
        for number, action in enumerate(actions):
            if number % EPISODE == 0:
                envs.reset(seed=config.seed)
            begin = time.perf_counter()
            envs.step(action)
            spent += time.perf_counter() - begin
        return config.real_steps * config.cores, spent

    return step


def actions_for(seed: int, shape: tuple[int, int], space: gym.Space) -> np.ndarray:
    """Return (steps, envs, 7) random actions, within half the bounds."""
    assert isinstance(space, gym.spaces.Box)
    draws = np.random.default_rng(seed).uniform(-0.5, 0.5, (*shape, *space.shape))
    return (draws * space.high).astype(np.float32)


def run(config: ImaginationSpeedConfig) -> Record:
    """Measure all by turns, print and return the figures."""
    import torch

    from jepa_gym.world_model import WorldModel

    model = WorldModel.from_pretrained(config.checkpoint)
    vector, cores = vector_stepper(config, model), config.cores
    steppers = {
        (VECTOR, 1): vector,
        (SINGLE, 1): single_stepper(config, model),
        (VECTOR, cores): vector,
        (CANDIDATES, cores): candidate_stepper(config, model),
        (REAL, cores): real_stepper(config, model),
    }
    measured: dict[tuple[str, int], list[float]] = {key: [] for key in steppers}
    for number in range(config.rounds + 1):
        for key, stepper in steppers.items():
            torch.set_num_threads(key[1])
            steps, seconds = stepper()
            if number:  # the first round warms up
                measured[key].append(steps / seconds)
    speeds = {key: statistics.median(values) for key, values in measured.items()}
    figures = {
        "rows": [{"what": what, "cores": n, "steps_per_s": x} for (what, n), x in speeds.items()],
        "vector_ratio": speeds[VECTOR, 1] / speeds[SINGLE, 1],
        "real_ratio": speeds[VECTOR, cores] / speeds[REAL, cores],
        "candidates_ratio": speeds[CANDIDATES, cores] / speeds[REAL, cores],
    }
    print_figures(config, figures)
    return figures


def print_figures(config: ImaginationSpeedConfig, figures: Record) -> None:
    """Print steps per second and ratios."""
    print(f"{config.envs} imagined environments")
    rows = figures["rows"]
    cells = [(row["what"], str(row["cores"]), f"{row['steps_per_s']:.1f}") for row in rows]
    print(aligned([("", "cores", "steps/s"), *cells]))
    for name, key, bar in (
        ("vector over single", "vector_ratio", VECTOR_BAR),
        ("vector over real", "real_ratio", REAL_BAR),
        ("candidates over real", "candidates_ratio", REAL_BAR),
    ):
        print(f"{name}: {figures[key]:.1f} (bar {bar:.0f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return command(run, ImaginationSpeedConfig, arguments, one_thread=True)


if __name__ == "__main__":
    sys.exit(main())
