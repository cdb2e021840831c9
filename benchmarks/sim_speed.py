"""Speed of the Franka suite against stock robosuite, in one run: `python benchmarks/sim_speed.py`.

Both simulate the same quarter seconds of a moving Panda and render one 128x128 picture after each.
Stock robosuite: `Lift` with its default controller at 20 Hz, five control steps per picture.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import jepa_gym  # noqa: F401  (registers the environments)

CONTROL_STEPS_PER_FRAME = 5


@dataclass(frozen=True, slots=True)
class SpeedConfig:
    """Measure frames per second of one thread, and the ratio to stock robosuite."""

    frames: int = 200
    """Frames per measurement of the suite; stock robosuite gets a fifth of them."""
    image_size: int = 128
    """Height and width of one picture."""
    output: Path | None = None
    """JSON file for the figures."""


THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
"""Figures are per core; LP is Mesa's software renderer, 0 keeps it in the calling thread."""


def measure(step: Callable[[], None], frames: int) -> dict[str, float]:
    """Return frames per wall second and per CPU second of `frames` calls of `step`."""
    step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(frames):
        step()
    return {
        "frames_per_s": frames / (time.perf_counter() - wall),
        "frames_per_cpu_s": frames / (time.process_time() - cpu),
    }


def suite(camera: str, config: SpeedConfig) -> dict[str, float]:
    """Measure `FrankaReach-v0` with random moves, one frame per step."""
    env = gym.make(
        "FrankaReach-v0",
        obs_mode="pixels",
        camera=camera,
        image_size=config.image_size,
        max_episode_steps=10**9,
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    scale = np.array([0.3] * 3 + [0.0] * 3 + [1.0], np.float32)
    figures = measure(lambda: env.step(env.action_space.sample() * scale), config.frames)
    env.close()
    return figures


def stock(config: SpeedConfig) -> dict[str, float]:
    """Measure robosuite's `Lift` with random moves, one frame per quarter second."""
    import robosuite

    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=True,
        use_camera_obs=False,
        control_freq=20,
        hard_reset=False,
        ignore_done=True,
    )
    env.reset()
    rng = np.random.default_rng(0)

    def step() -> None:
        action = 0.3 * rng.uniform(-1, 1, env.action_dim)
        for _ in range(CONTROL_STEPS_PER_FRAME):
            env.step(action)
        env.sim.render(config.image_size, config.image_size, camera_name="agentview")

    figures = measure(step, max(10, config.frames // 5))
    env.close()
    return figures


def main() -> None:
    """Run the command line."""
    config = tyro.cli(SpeedConfig, description=SpeedConfig.__doc__)
    if any(os.environ.get(name) != value for name, value in THREADS.items()):
        # the libraries read these when they are loaded, which has happened
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | THREADS)
    rows = {
        "suite, left": suite("left", config),
        "suite, left+wrist": suite("left+wrist", config),
        "stock robosuite": stock(config),
    }
    base = rows["stock robosuite"]["frames_per_cpu_s"]
    print(f"{'':20}{'frames/s':>10}{'per CPU-s':>11}{'ratio':>8}   ({config.image_size} px)")
    for name, figures in rows.items():
        figures["ratio_to_stock"] = figures["frames_per_cpu_s"] / base
        print(
            f"{name:20}{figures['frames_per_s']:10.1f}{figures['frames_per_cpu_s']:11.1f}"
            f"{figures['ratio_to_stock']:8.1f}"
        )
    if config.output is not None:
        config.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
