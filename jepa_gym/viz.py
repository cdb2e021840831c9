"""Pictures of what a world model sees and imagines, for notebooks, reports and films.

Functions return matplotlib figures or arrays (Y, X, 3) uint8 and write nothing. Colours are those
of Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from jepa_gym.checkpoint.beside import DECODER
from jepa_gym.world_model import WorldModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, IMAGINED, GOAL = "#0072B2", "#E69F00", "#009E73"
"""Colours of what is real, imagined and wanted."""
FURTHER = ("#CC79A7", "#D55E00", "#56B4E9", "#000000", "#0072B2", "#E69F00")
"""Colours of things that have none of their own, in turn."""
AXES = {"x": 0, "y": 1, "z": 2, "gripper": 6}
"""Numbers of an action that a landscape can be drawn over."""
LABELS = {"x": "dx, cm", "y": "dy, cm", "z": "dz, cm", "gripper": "change of closedness"}
GRIPPER_BOUND = 1.0


def decoded(model: WorldModel, latents: Tensor | np.ndarray) -> np.ndarray:
    """Draw latents by the decoder beside a model.

    Args:
        model: Loaded from a folder with a decoder.
        latents: (..., N, D).

    Returns:
        Pictures (..., Y, X, 3) uint8.

    Raises:
        ValueError: If there is no decoder beside the model.
        CheckpointError: If its file cannot be used.
    """
    decoder = DECODER.own(model)
    if decoder is None:
        raise ValueError(
            f"the model {model.folder or ''} has no decoder beside it; train one with "
            f"`{DECODER.command} --checkpoint FOLDER`"
        )
    tensor = torch.as_tensor(latents, dtype=torch.float32, device=model.device)
    with torch.no_grad():
        parts = [decoder(part) for part in tensor.flatten(0, -3).split(32)]
    pictures = (255 * torch.cat(parts).clamp(0, 1)).round().byte().cpu().numpy()
    return pictures.reshape(*tensor.shape[:-2], *pictures.shape[1:])


def tiled(rows: Sequence[Sequence[np.ndarray]], gap: int = 4, scale: int = 1) -> np.ndarray:
    """Join pictures to one.

    Args:
        rows: Pictures (Y, X, 3) uint8 of equal size, row by row, as many in each.
        gap: White pixels between them.
        scale: How often each pixel is repeated along both axes.

    Returns:
        (Y', X', 3) uint8.

    Raises:
        ValueError: If sizes or lengths of rows differ.
    """
    shapes = {picture.shape for row in rows for picture in row}
    if len(shapes) != 1 or len({len(row) for row in rows}) != 1:
        raise ValueError(f"pictures must be of one size and rows of one length, got {shapes}")
    (height, width, _) = shapes.pop()
    down, right = len(rows), len(rows[0])
    size = (down * (height * scale + gap) - gap, right * (width * scale + gap) - gap, 3)
    sheet = np.full(size, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            top, left = i * (height * scale + gap), j * (width * scale + gap)
            large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + height * scale, left : left + width * scale] = large
    return sheet


def landscape(
    model: WorldModel, observation: dict[str, np.ndarray], axes: tuple[str, str] = ("x", "y"),
    at: Sequence[float] | None = None, points: int = 25,
) -> Figure:  # fmt: skip
    """Draw the energy of one imagined step over two numbers of the action.

    Args:
        model: The world model.
        observation: Of a real environment (`pixels`, `goal_pixels`, `observation`).
        axes: Two of `AXES`, for the horizontal and the vertical axis.
        at: (7,), the action around which the two are varied; zeros by default.
        points: Values of each.

    Returns:
        A figure with the minimum marked.

    Raises:
        ValueError: If an axis is unknown.
    """
    from matplotlib.figure import Figure

    if len(set(axes)) != 2 or not set(axes) <= set(AXES):
        raise ValueError(f"`axes` must be two of {tuple(AXES)}, got {axes}")
    spans = [_span(model, axis, points) for axis in axes]
    energies = energy_grid(model, observation, axes, spans, at)
    figure = Figure(figsize=(4.6, 3.8), dpi=110, layout="constrained")
    panel = figure.subplots()
    units = [1 if axis == "gripper" else 100 for axis in axes]
    across, up = (unit * span for unit, span in zip(units, spans, strict=True))
    drawn = panel.pcolormesh(across, up, energies.T, shading="nearest", cmap="viridis")
    best = np.unravel_index(energies.argmin(), energies.shape)
    panel.plot(across[best[0]], up[best[1]], marker="o", color="white", markeredgecolor="black")
    panel.set(xlabel=LABELS[axes[0]], ylabel=LABELS[axes[1]])
    figure.colorbar(drawn, label="energy after the step")
    return figure


def _span(model: WorldModel, axis: str, points: int) -> np.ndarray:
    bound = GRIPPER_BOUND if axis == "gripper" else model.config.frame.max_move_m
    return np.linspace(-bound, bound, points)


def energy_grid(
    model: WorldModel,
    observation: dict[str, np.ndarray],
    axes: tuple[str, str],
    spans: Sequence[np.ndarray],
    at: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the energies (P, Q) of one imagined step over two numbers of the action.

    Args:
        model: The world model.
        observation: Of a real environment.
        axes: Two of `AXES`.
        spans: Their values (P,) and (Q,), metres or closedness.
        at: (7,), the rest of the action; zeros by default.
    """
    actions = np.tile(np.zeros(7) if at is None else np.asarray(at, float), (*map(len, spans), 1))
    for place, (axis, span) in enumerate(zip(axes, spans, strict=True)):
        shape = (-1, 1) if place == 0 else (1, -1)
        actions[..., AXES[axis]] = span.reshape(shape)
    current, goal = model.observe({k: np.asarray(v)[None] for k, v in observation.items()})
    state = torch.as_tensor(observation["observation"], dtype=torch.float32, device=model.device)
    candidates = torch.as_tensor(actions.reshape(1, -1, 1, 7), dtype=torch.float32)
    with torch.no_grad():
        energies = model.rollout_energy(
            current[:, None], state[None, None], candidates.to(model.device), goal
        )
    return energies[0].cpu().numpy().reshape(actions.shape[:2])


def paths_in_picture(
    picture: np.ndarray, paths: np.ndarray, costs: np.ndarray, scale: int = 3
) -> np.ndarray:
    """Draw where candidate plans lead the hand into a picture.

    Args:
        picture: (Y, X, 3) uint8, of one camera.
        paths: (M, H + 1, 2), column and row in its pixels of the hand now and after each step, as
            `project` of an environment of the suite gives them.
        costs: (M,); cheap plans are drawn dark and last, those without a finite cost not at all.
        scale: How much larger the result is.

    Returns:
        (scale * Y, scale * X, 3) uint8.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    figure = Figure(figsize=(scale * width / 100, scale * height / 100), dpi=100)
    panel: Any = figure.add_axes((0, 0, 1, 1))
    panel.imshow(picture, interpolation="bilinear")
    panel.axis("off")
    finite = np.flatnonzero(np.isfinite(costs))
    order = finite[np.argsort(-costs[finite])]
    shades = colormaps["viridis_r"](np.linspace(0, 1, len(order)))
    for shade, number in zip(shades, order, strict=True):
        panel.plot(*paths[number].T, color=shade, linewidth=0.8, marker=".", markersize=3)
    panel.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return pixels_of(figure)


def gif(frames: Sequence[np.ndarray] | np.ndarray, fps: float = 4.0) -> bytes:
    """Return pictures (T, Y, X, 3) uint8 as an animated GIF that repeats, for a notebook's page.

    Args:
        frames: The pictures, of one size.
        fps: Pictures a second.
    """
    from io import BytesIO

    import imageio.v3 as imageio

    written = BytesIO()
    imageio.imwrite(written, np.stack(list(frames)), extension=".gif", duration=1000 / fps, loop=0)
    return written.getvalue()


def latent_map(model: WorldModel, frames: np.ndarray, scale: int = 8) -> np.ndarray:
    """Colour tokens by their first three principal components over all frames, as the papers do.

    Args:
        model: Encodes the frames.
        frames: (T, Y, X, 3) uint8.
        scale: Pixels of a token's side.

    Returns:
        (T, rows * scale, columns * scale, 3) uint8.
    """
    latents = model.encode(frames[None])[0].float().cpu().numpy()
    rows, columns = model.config.grid
    tokens = latents.reshape(-1, latents.shape[-1])
    centred = tokens - tokens.mean(0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    found = centred @ components[:3].T
    low, high = np.percentile(found, [2, 98], axis=0)
    shades = (255 * np.clip((found - low) / np.maximum(high - low, 1e-9), 0, 1)).astype(np.uint8)
    pictures = shades.reshape(len(frames), rows, columns, 3)
    return pictures.repeat(scale, axis=1).repeat(scale, axis=2)


def curves(
    named: dict[str, Sequence[float]], ylabel: str, until: int | None = None,
    xlabel: str = "step",
) -> Figure:  # fmt: skip
    """Draw numbers over the steps of an episode.

    Args:
        named: Label to values; `real`, `imagined` and `goal` have colours of their own.
        ylabel: What is drawn, with its unit.
        until: Draw the values up to this step only, the axes as for all.
        xlabel: What is counted.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 2.6), dpi=110, layout="constrained")
    panel: Any = figure.subplots()
    colours = {"real": REAL, "imagined": IMAGINED, "goal": GOAL}
    further = cycle(FURTHER)
    for label, values in named.items():
        shown = list(values)[: None if until is None else until + 1]
        panel.plot(shown, marker=".", color=colours.get(label) or next(further), label=label)
    highest = max(max(values) for values in named.values())
    longest = max(len(values) for values in named.values())
    panel.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.08 * highest), xlim=(-0.4, longest - 0.6))
    panel.legend(loc="upper right", fontsize=8)
    return figure


def pixels_of(figure: Figure) -> np.ndarray:
    """Return a figure as a picture (Y, X, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
