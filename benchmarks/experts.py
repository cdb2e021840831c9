"""Success of agents without a model, on every task and object: `python benchmarks/experts.py`.

The scripted expert shows what the suite allows; the explorers show what comes by chance. Failures
are counted by their reason. It is `reach_grasp.py` with other defaults and without videos.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jepa_gym.benchmarks import reach_grasp
from jepa_gym.commands import run_command


@dataclass(frozen=True)
class Arguments(reach_grasp.Arguments):
    """Play every task with every object, without a world model."""

    agents: tuple[str, ...] | None = ("scripted",)
    splits: tuple[str, ...] | None = (reach_grasp.PLAIN,)
    protocols: tuple[str, ...] | None = ("published",)
    starts: tuple[Literal["plain", "far"], ...] | None = (reach_grasp.PLAIN,)
    all: bool = True
    episodes: int | None = 200
    output: Path = Path("results/experts")
    videos: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(reach_grasp.run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
