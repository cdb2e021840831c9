"""Speed of imagined steps, as ratios in one run.

`python benchmarks/imagination_speed.py` steps `JEPALatent-v0`, as one vector environment and as so
many single ones in turn; imagines candidates, as planners do; and steps `FrankaReach-v0` with
pictures, at the views, size and step of the default model. All by turns, in one process with one
thread.
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

from jepa_gym.checkpoints import read_starts

VECTOR_BAR = 5.0
REAL_BAR = 10.0
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
"""LP is Mesa's software renderer; 0 keeps it in the calling thread."""
QUICK = {"envs": 8, "steps": 3, "real_steps": 5, "rounds": 1}


@dataclass(frozen=True)
class ImaginationSpeedConfig:
    """Measure imagined steps per second, one thread, against single and real environments."""

    checkpoint: str = "default"
    """Name or folder of the model."""
    envs: int = 64
    """Imagined environments."""
    steps: int = 8
    """Steps of each in a measurement; at most 10, so that no episode ends."""
    real_steps: int = 20
    """Real steps in a measurement; an episode that ends is reset out of the count."""
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
        for name in ("envs", "steps", "real_steps", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.steps > 10:
            raise ValueError(f"`steps` must be at most 10, got {self.steps}")


Stepper = Callable[[], tuple[int, float, float]]
"""Does its steps and returns their number, and seconds by the clock and of the processor."""


def clocks() -> np.ndarray:
    """Return seconds by the clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def vector_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps one vector environment."""
    envs = gym.make_vec("JEPALatent-v0", num_envs=config.envs, model=model)
    actions = actions_for(config, envs.single_action_space)

    def step() -> tuple[int, float, float]:
        envs.reset(seed=config.seed)
        begin = clocks()
        for action in actions:
            envs.step(action)
        return actions.shape[0] * config.envs, *(clocks() - begin)

    return step


def candidate_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what imagines as many candidate steps of one context, as planners do."""
    import torch

    starts = read_starts(model.folder)
    shown = np.stack([starts.frames[0], starts.frames[0], starts.goal_frames[0]])
    latents = model.encode(torch.from_numpy(shown)[None])
    states = torch.from_numpy(np.stack([starts.states[0]] * 2))[None]
    start = model.imagination(latents[:, :2], states)
    bounds = np.array(model.config.action_bounds, np.float32)
    candidates = np.random.default_rng(config.seed).uniform(-1, 1, (config.envs, 1, 7)) * bounds
    actions = torch.from_numpy(candidates.astype(np.float32))[None]

    def step() -> tuple[int, float, float]:
        begin = clocks()
        for _ in range(config.steps):
            start.energy(actions, latents[:, 2])
        return config.steps * config.envs, *(clocks() - begin)

    return step


def single_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps as many single environments, one after the other."""
    envs = [gym.make("JEPALatent-v0", model=model) for _ in range(config.envs)]
    actions = actions_for(config, envs[0].action_space)

    def step() -> tuple[int, float, float]:
        for number, env in enumerate(envs):
            env.reset(seed=config.seed + number)
        begin = clocks()
        for action in actions:
            for env, own in zip(envs, action, strict=True):
                env.step(own)
        return actions.shape[0] * config.envs, *(clocks() - begin)

    return step


def real_stepper(config: ImaginationSpeedConfig, model: Any) -> Stepper:
    """Return what steps the simulator, with pictures as the model wants them."""
    env = gym.make("FrankaReach-v0", obs_mode="both", **model.config.frame.env_kwargs())
    rng = np.random.default_rng(config.seed)
    bounds = env.action_space.high / 2

    def step() -> tuple[int, float, float]:
        spent = np.zeros(2)
        done = True
        for _ in range(config.real_steps):
            if done:
                env.reset(seed=config.seed)
            action = (rng.uniform(-1, 1, bounds.shape) * bounds).astype(np.float32)
            begin = clocks()
            _, _, terminated, truncated, _ = env.step(action)
            spent += clocks() - begin
            done = terminated or truncated
        return config.real_steps, *spent

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

    torch.set_num_threads(1)
    model = WorldModel.from_pretrained(config.checkpoint)
    steppers = {
        "vector": vector_stepper(config, model),
        "single, in turn": single_stepper(config, model),
        "candidates": candidate_stepper(config, model),
        "real, pixels": real_stepper(config, model),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
    for number in range(config.rounds + 1):
        for name, stepper in steppers.items():
            steps, wall, cpu = stepper()
            if number:  # the first round warms up
                measured[name].append((steps / wall, steps / cpu))
    rows = {}
    for name, values in measured.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        rows[name] = {"steps_per_s": wall, "steps_per_cpu_s": cpu}
    return {
        "config": asdict(config) | {"output": None},
        "rows": rows,
        "vector_ratio": ratio(rows, "vector", "single, in turn"),
        "real_ratio": ratio(rows, "vector", "real, pixels"),
        "candidates_ratio": ratio(rows, "candidates", "real, pixels"),
    }


def ratio(rows: dict[str, dict[str, float]], one: str, other: str) -> dict[str, float]:
    """Return how much faster one is than the other, by the clock and in processor time."""
    names = {"wall": "steps_per_s", "cpu": "steps_per_cpu_s"}
    return {key: rows[one][name] / rows[other][name] for key, name in names.items()}


def print_figures(figures: dict[str, Any]) -> None:
    """Print steps per second and ratios."""
    print(f"{figures['config']['envs']} imagined environments, one thread")
    print(f"{'':18}{'steps/s':>10}{'per CPU-s':>11}")
    for name, row in figures["rows"].items():
        print(f"{name:18}{row['steps_per_s']:10.1f}{row['steps_per_cpu_s']:11.1f}")
    for name, key, bar in (
        ("vector over single", "vector_ratio", VECTOR_BAR),
        ("vector over real", "real_ratio", REAL_BAR),
        ("candidates over real", "candidates_ratio", REAL_BAR),
    ):
        found = figures[key]
        print(f"{name}: {found['wall']:.1f} (bar {bar:.0f}), of CPU {found['cpu']:.1f}")


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
