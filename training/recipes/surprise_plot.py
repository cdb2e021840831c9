"""Pictures of surprise over time, with the frames below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jepa_gym.files import atomic_write

MOST_FRAMES = 16
"""Frames that are shown of a clip; of longer ones, evenly chosen."""
FRAME_WIDTH = 1.3
HEAD = 3.0
"""Inches: width of a frame, height of what is above the frames."""


@dataclass(frozen=True)
class Curve:
    """A clip and how surprising each of its frames is."""

    frames: np.ndarray
    """(T, Y, X, 3) uint8."""
    first: int
    """The frame that the first score belongs to."""
    scores: np.ndarray
    """(T - first,)."""


def draw_surprise(
    path: Path,
    title: str,
    curves: Mapping[str, Curve],
    step_s: float,
    unit: str,
    moment: int | None = None,
) -> None:
    """Draw the surprise of clips of one length over time, and their frames below.

    Args:
        path: PNG file to write, complete or not at all.
        title: Above the picture.
        curves: What a clip is called -> the clip.
        step_s: Seconds between frames.
        unit: What surprise is counted in.
        moment: The frame at which something happens, to be marked.
    """
    from matplotlib.figure import Figure

    one = next(iter(curves.values())).frames
    length, rows = len(one), len(curves)
    shown = np.unique(np.linspace(0, length - 1, min(length, MOST_FRAMES)).round().astype(int))
    width = FRAME_WIDTH * len(shown)
    height = FRAME_WIDTH * one.shape[1] / one.shape[2]
    below, wide = rows * (height + 0.08) + 0.05, width + 0.9
    tall = below + HEAD
    figure = Figure(figsize=(wide, tall), dpi=110)
    across = {"left": 0.8 / wide, "right": 1 - 0.1 / wide}
    top = figure.add_gridspec(1, 1, bottom=(below + 0.4) / tall, top=1 - 0.35 / tall, **across)
    grid = figure.add_gridspec(
        rows, len(shown), bottom=0.02 / tall, top=below / tall, wspace=0.04, hspace=0.08, **across
    )
    panel = figure.add_subplot(top[0])
    for number, (name, curve) in enumerate(curves.items()):
        times = step_s * np.arange(curve.first, curve.first + len(curve.scores))
        panel.plot(times, curve.scores, "o-", color=f"C{number}", label=name)
        for column, frame in enumerate(shown):
            axes = figure.add_subplot(grid[number, column])
            axes.imshow(curve.frames[frame])
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                marked = moment is not None and frame >= moment
                spine.set(color=f"C{number}" if marked else "0.8", linewidth=2 if marked else 0.5)
    if moment is not None:
        panel.axvline(step_s * moment, color="0.6", linestyle=":", label="from here on")
    half = step_s * (length - 1) / len(shown) / 2 if length > 1 else step_s / 2
    panel.set(xlim=(-half, step_s * (length - 1) + half), xlabel="time, s")
    panel.set_ylabel(unit, fontsize=8)
    panel.legend(loc="upper left")
    figure.suptitle(title)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
