"""Train the reinforcement-learning baseline on states in the simulator.

Soft actor-critic with hindsight goals (Stable-Baselines3) on state observations in the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from jepa_gym.agents.sac import train


@dataclass(frozen=True, slots=True)
class TrainRLConfig:
    """Train soft actor-critic with hindsight goals on state observations."""

    output: Path
    """Zip file for the policy."""
    env_id: Literal[
        "FrankaReach-v0", "FrankaGrasp-v0", "FrankaReachWithObject-v0", "FrankaPickPlace-v0"
    ] = "FrankaReach-v0"
    """Task."""
    obj: str = "box"
    """Object of the catalogue."""
    steps: int = 20_000
    """Environment steps."""
    seed: int = 0
    """Seed of environment, networks and exploration."""
    device: str = "cpu"
    """Torch device."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {self.steps}")
        if self.seed < 0:
            raise ValueError(f"`seed` must not be negative, got {self.seed}")


def main() -> int:
    """Run the command line."""
    config = tyro.cli(TrainRLConfig, description=TrainRLConfig.__doc__)
    path = train(
        config.env_id,
        config.steps,
        config.output,
        seed=config.seed,
        device=config.device,
        env_kwargs={"obj": config.obj},
    )
    print(f"policy written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
