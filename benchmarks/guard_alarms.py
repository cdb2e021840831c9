"""How often the guard of pictures warns: wrongly in the suite, rightly of garbage.

`python benchmarks/guard_alarms.py` looks at every frame of episodes in all splits, every second one
from a far start, and at what a broken or turned camera would show instead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jepa_gym.agents.guards import LIMIT, Familiar, surprise
from jepa_gym.agents.inverse_agent import InverseAgent
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS, STARTS, environment, world_model
from jepa_gym.benchmarks.options import at_least
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.commands import run_command
from jepa_gym.envs.splits import SPLITS, split_objects

RNG = np.random.default_rng(0)
SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "black": lambda x: np.full_like(x, 2),
    "white": lambda x: np.full_like(x, 255),
    "grey": lambda x: np.full_like(x, 128),
    "noise": lambda x: RNG.integers(0, 256, x.shape, np.uint8),
    "upside down": lambda x: x[:, ::-1].copy(),
    "a tenth of the light": lambda x: x // 10,
    "mirrored": lambda x: x[:, :, ::-1].copy(),
    "blue for red": lambda x: x[..., ::-1].copy(),
}
"""What a camera may do to frames (B, Y, X, 3) uint8."""


@dataclass(frozen=True)
class Arguments:
    """Count the warnings of the guard of pictures."""

    episodes: int = 12
    """Episodes of each split."""
    task: str = "reach"
    """A task of the suite."""
    checkpoint: str = "default"
    """World model with start frames and an inverse model beside it."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: If there is no episode.
        """
        at_least(self, episodes=1)


def frames_of(arguments: Arguments, split: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Play episodes; return all frames (M, Y, X, 3), states (M, 7) and episodes' numbers (M,)."""
    agent = InverseAgent(world_model(arguments.checkpoint))
    obj = "box" if split is None else split_objects(split)[0]
    env = environment(
        arguments.checkpoint, arguments.task, obj=obj, split=split, protocol="one", obs_mode="both"
    )
    views, numbers = [], []
    for number in range(arguments.episodes):
        start = STARTS["far" if number % 2 else "plain"]
        observation, _ = env.reset(seed=HELD_OUT_SEEDS + number, options=start or None)
        done = False
        while not done:
            views.append(observation)
            numbers.append(number)
            action, _ = agent.predict(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
    return (
        np.stack([view["pixels"] for view in views]),
        np.stack([view["observation"] for view in views]),
        np.array(numbers),
    )


def run(arguments: Arguments) -> list[Record]:
    """Measure and print; return the rows.

    Raises:
        ValueError: If the model has no start frames.
    """
    model = world_model(arguments.checkpoint)
    familiar = Familiar.of(model)
    if familiar is None:
        raise ValueError(
            f"the checkpoint {arguments.checkpoint} has no start frames to compare with"
        )

    rows: list[Record] = []

    def look(shown: str, frames: np.ndarray, states: np.ndarray, numbers: np.ndarray) -> None:
        latents, hands = model.encode(frames[:, None])[:, 0], torch.from_numpy(states)
        odd = familiar.unlike(model, latents, hands, frames)
        score = surprise(model, latents, hands) / familiar.surprise
        rows.append(
            {
                "shown": shown,
                "frames": len(odd),
                "frames_warned": int(odd.sum()),
                "episodes": arguments.episodes,
                "episodes_warned": len(set(numbers[odd].tolist())),
                "highest": float(score.max()),
            }
        )

    seen = {split: frames_of(arguments, split) for split in (None, *SPLITS)}
    for split, found in seen.items():
        look(split or "plain", *found)
    frames, states, numbers = seen["train"]
    for name, spoil in SPOILT.items():
        look(name, spoil(frames), states, numbers)
    titles = ("shown", "warned of frames", "of episodes", f"highest (limit {LIMIT:g})")
    print(aligned([titles, *map(_cells, rows)]))
    return rows


def _cells(row: Record) -> tuple[str, ...]:
    counts = (f"{row[f'{what}_warned']} of {row[what]}" for what in ("frames", "episodes"))
    return (row["shown"], *counts, f"{row['highest']:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(lambda chosen: run(chosen) and None, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
