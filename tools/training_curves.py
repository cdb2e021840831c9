"""Draw the curves of training runs that follow on each other.

`python tools/training_curves.py runs/cooldown runs/posttrain` draws for each run the loss and
below it the figure that chose its best state, over the steps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jepa_gym.commands import run_command
from jepa_gym.files import atomic_write

SCORES = {"landscape_error": "landscape error", "probe_cm": "probe of the hand, cm"}
"""The figures that choose states, and what they are called."""


@dataclass(frozen=True)
class CurvesConfig:
    """Draw the losses and scores of training runs, side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, in their order."""
    output: Path = Path("curves.png")
    """The picture."""


def draw(config: CurvesConfig) -> None:
    """Draw the picture.

    Raises:
        FileNotFoundError: If a folder holds no log.
        ValueError: If no run is given.
    """
    if not config.runs:
        raise ValueError("name at least one folder of a run")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(config.runs)
    figure, axes = pyplot.subplots(
        2, count, figsize=(3.6 * count, 4.4), layout="constrained", squeeze=False, sharex="col"
    )
    for column, run in enumerate(config.runs):
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        score = next(name for name in SCORES if any(name in line for line in lines))
        scores = [(line["step"], line[score]) for line in lines if score in line]
        above, below = axes[:, column]
        above.plot(*zip(*losses, strict=True), color="#0072b2")
        above.set(title=run.name, ylabel="loss (L1)")
        below.plot(*zip(*scores, strict=True), color="#d55e00", marker="o")
        below.set(xlabel="step", ylabel=SCORES[score])
        for axis, values in ((above, losses), (below, scores)):
            axis.set_ylim(0, 1.1 * max(value for _, value in values))
            axis.grid(alpha=0.3)
    with atomic_write(config.output) as path:
        figure.savefig(path, dpi=110, format="png")


if __name__ == "__main__":
    raise SystemExit(run_command(draw, CurvesConfig))
