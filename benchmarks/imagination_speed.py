"""Speed of imagined steps, as ratios in one run.

`python benchmarks/imagination_speed.py` steps `JEPALatent-v0`, as one vector environment and as so
many single ones in turn, with one thread. Then it takes all `cores`: for the vector environment and
for candidates, as planners imagine them, as threads; for `FrankaReach-v0` with pictures, at the
views, size and step of the model, as processes of one thread. All by turns.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from jepa_gym.checkpoint.start_frames import read_starts

VECTOR, SINGLE, CANDIDATES, REAL = "vector", "single, in turn", "candidates", "real, pixels"
VECTOR_BAR = 5.0
REAL_BAR = 10.0
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
"""LP is Mesa's software renderer; 0 keeps it in the calling thread."""
QUICK = {"envs": 8, "steps": 3, "real_steps": 5, "rounds": 1}


@dataclass(frozen=True)
class ImaginationSpeedConfig:
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
    rounds: int = 3
    """Measurements of each, by turns; medians count."""
    seed: int = 0
    """Of episodes and actions."""
    quick: bool = False
    """A look in seconds: 8 environments, 3 steps, 5 real steps, 1 round."""
    output: Path | None = None
    """JSON file for the figures."""

    def __post_init__(self) -> None:
        """Check ranges and apply `quick`.

        Raises:
            ValueError: a number is out of its range.
        """
        if self.quick:
            for name, value in QUICK.items():
                object.__setattr__(self, name, value)
        for name in ("envs", "steps", "real_steps", "cores", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.steps > 10:
            raise ValueError(f"`steps` must be at most 10, got {self.steps}")


Stepper = Callable[[], tuple[int, float]]
"""Does its steps and returns their number, and seconds by the clock."""
EPISODE = 10
"""Steps after which a real environment is reset."""


def vector_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps one vector environment."""
    envs = gym.make_vec("JEPALatent-v0", num_envs=config.envs, model=model)
    actions = actions_for(config, envs.single_action_space)

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
    actions = actions_for(config, envs[0].action_space)

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
    rng = np.random.default_rng(config.seed)
    bounds = envs.single_action_space.high / 2

    def step() -> tuple[int, float]:
        spent = 0.0
        for number in range(config.real_steps):
            if number % EPISODE == 0:
                envs.reset(seed=config.seed)
            actions = rng.uniform(-1, 1, (config.cores, *bounds.shape)) * bounds
            begin = time.perf_counter()
            envs.step(actions.astype(np.float32))
            spent += time.perf_counter() - begin
        return config.real_steps * config.cores, spent

    return step


def actions_for(config: ImaginationSpeedConfig, space: gym.spaces.Box) -> np.ndarray:
    """Return (steps, envs, 7) random actions, within half the bounds."""
    rng = np.random.default_rng(config.seed)
    shape = (config.steps, config.envs, *space.shape)
    return (rng.uniform(-0.5, 0.5, shape) * space.high).astype(np.float32)


def run(config: ImaginationSpeedConfig) -> dict[str, Any]:
    """Measure all by turns and return the figures."""
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
    return {
        "config": asdict(config) | {"output": None},
        "rows": [{"what": what, "cores": n, "steps_per_s": x} for (what, n), x in speeds.items()],
        "vector_ratio": speeds[VECTOR, 1] / speeds[SINGLE, 1],
        "real_ratio": speeds[VECTOR, cores] / speeds[REAL, cores],
        "candidates_ratio": speeds[CANDIDATES, cores] / speeds[REAL, cores],
    }


def print_figures(figures: dict[str, Any]) -> None:
    """Print steps per second and ratios."""
    print(f"{figures['config']['envs']} imagined environments")
    print(f"{'':18}{'cores':>6}{'steps/s':>10}")
    for row in figures["rows"]:
        print(f"{row['what']:18}{row['cores']:6}{row['steps_per_s']:10.1f}")
    for name, key, bar in (
        ("vector over single", "vector_ratio", VECTOR_BAR),
        ("vector over real", "real_ratio", REAL_BAR),
        ("candidates over real", "candidates_ratio", REAL_BAR),
    ):
        print(f"{name}: {figures[key]:.1f} (bar {bar:.0f})")


def main() -> None:
    """Run the command line."""
    config = tyro.cli(ImaginationSpeedConfig, description=ImaginationSpeedConfig.__doc__)
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        # libraries read these when they are loaded, and some may be by now
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | THREADS)
    figures = run(config)
    print_figures(figures)
    if config.output is not None:
        config.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
