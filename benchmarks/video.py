"""Videos of episodes: goal, execution and, for planning agents, the imagined energy."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jepa_gym.benchmarks.episodes import Film
from jepa_gym.files import atomic_write

FRAMES_PER_SECOND = 4
"""Real time: one frame is one step of 0.25 s."""
WIDTH_PX, HEIGHT_PX, DPI = 480, 320, 100
"""Size of one column, and dots per inch of its text."""


def write_video(film: Film, path: Path) -> None:
    """Draw an episode as goal | execution | energy and write it as H.264.

    Args:
        film: What to show; without plans there is no energy column.
        path: MP4 file to write, complete or not at all.
    """
    columns = 3 if film.plans else 2
    figure = Figure(figsize=(columns * WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    goal_axes, frame_axes, *energy_axes = figure.subplots(1, columns)
    goal, frame = goal_axes.imshow(film.goals[0]), frame_axes.imshow(film.frames[0])
    goal_axes.set(title="goal", xticks=[], yticks=[])
    frame_axes.set(xticks=[], yticks=[])
    figure.suptitle(film.title, fontsize=10)
    for axes in energy_axes:
        _draw_energy(axes, film, 0)  # so that the layout makes room for its labels
    figure.tight_layout()
    images = []
    for step, distance in enumerate(film.distances_m):
        goal.set_data(film.goals[step])
        frame.set_data(film.frames[step])
        frame_axes.set_title(f"execution, step {step}, {distance * 100:.1f} cm")
        for axes in energy_axes:
            _draw_energy(axes, film, step)
        canvas.draw()
        images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    images += [images[-1]] * FRAMES_PER_SECOND  # rest on the outcome for a second
    with atomic_write(path) as file:
        iio.imwrite(file, np.stack(images), plugin="pyav", codec="libx264", fps=FRAMES_PER_SECOND)


def _draw_energy(axes, film: Film, step: int) -> None:
    """Draw what was imagined up to a step: candidates, the choice and what came of it."""
    axes.clear()
    plans = film.plans[: step + 1]
    for index, plan in enumerate(plans):
        energies = plan.energies[0]
        axes.plot(np.full(len(energies), index + 1), energies, ".", color="0.8", markersize=3)
    after = np.arange(1, len(plans) + 1)
    axes.plot(after, [plan.hold_energy[0] for plan in plans], "x", color="C3", label="hold still")
    axes.plot(after, [plan.energy[0] for plan in plans], "o", color="C0", label="chosen")
    axes.plot(
        np.arange(len(plans)),
        [plan.current_energy[0] for plan in plans],
        "-",
        color="C1",
        label="observed (image)",
    )
    switches = (film.goals[1:] != film.goals[:-1]).any(axis=(1, 2, 3)).nonzero()[0]
    for switch in switches:
        axes.axvline(switch + 1, color="0.6", linestyle=":")
    axes.plot([], [], ".", color="0.6", label="candidates")
    highest = max(plan.energies[0][np.isfinite(plan.energies[0])].max() for plan in film.plans)
    axes.set(
        title="imagined energy",
        xlabel="step",
        xlim=(-0.5, len(film.plans) + 0.5),
        ylim=(0, 1.05 * highest),
    )
    axes.legend(fontsize=7, loc="upper right")
