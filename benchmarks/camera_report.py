"""Turn the cameras of a sweep into its line, table and plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.files import atomic_write


def trend(rows: Sequence[Record], own_deg: float) -> Record:
    """Fit a line to rotation against camera angle.

    Args:
        rows: Two or more cameras, by ascending angle.
        own_deg: The angle of the camera's own place.

    Returns:
        `slope` (degrees of rotation a degree of the camera; 1: directions are read off this camera
        alone, 0: not at all), `at_own_place_deg` (rotation there) and `largest_residual_deg`.
    """
    angles = np.array([row["angle_deg"] for row in rows]) - own_deg
    rotations = np.unwrap([row["rotation_deg"] for row in rows], period=360)
    slope, start = np.polyfit(angles, rotations, 1)
    residual = np.abs(rotations - start - slope * angles).max()
    return {
        "slope": float(slope),
        "at_own_place_deg": float(start),
        "largest_residual_deg": float(residual),
    }


def table(rows: Sequence[Record], trend: Record, own_deg: float) -> str:
    """Format cameras and their trend for the terminal."""
    cells = [("camera", "rotation of W", "condition", "error", "after fit", "explained")]
    cells += [
        (
            f"{row['angle_deg']:.1f} °",
            f"{row['rotation_deg']:.1f} °",
            f"{row['condition_number']:.2f}",
            f"{100 * row['error_before_m']:.2f} cm",
            f"{100 * row['error_after_m']:.2f} cm",
            f"{row['explained']:.0%}",
        )
        for row in rows
    ]
    text = [aligned(cells)]
    text += [
        "",
        f"rotation = {trend['at_own_place_deg']:.1f} ° + {trend['slope']:.2f} (camera - "
        f"{own_deg:.1f} °), residuals up to {trend['largest_residual_deg']:.1f} °",
        f"error: mean distance of inferred from real moves, {rows[0]['moves']} of them",
        "explained: share of their squared length that the fit accounts for; where it is small,",
        "rotation and condition number mean little",
    ]
    return "\n".join(text)


def write_plot(rows: Sequence[Record], trend: Record, own_deg: float, path: Path) -> None:
    """Draw rotation and errors against the camera angle.

    Args:
        rows: The cameras.
        trend: Their `trend`.
        own_deg: The angle of the camera's own place.
        path: PNG file to write, complete or not at all.
    """
    from matplotlib.figure import Figure

    angles = np.array([row["angle_deg"] for row in rows])
    figure = Figure(figsize=(10, 4), dpi=120)
    left, right = figure.subplots(1, 2)
    rotations = np.unwrap([row["rotation_deg"] for row in rows], period=360)
    left.plot(angles, rotations, "o", label="rotation of W")
    fitted = trend["at_own_place_deg"] + trend["slope"] * (angles - own_deg)
    left.plot(angles, fitted, "C1", label=f"line, slope {trend['slope']:.2f}")
    for name, label in (("error_before_m", "as inferred"), ("error_after_m", "after the fit")):
        right.plot(angles, [100 * row[name] for row in rows], "o-", label=label)
    left.set(ylabel="rotation, degrees")
    right.set(ylabel="mean error, cm", ylim=(0, None))
    for panel in (left, right):
        panel.axvline(own_deg, color="0.8", zorder=0, label="the camera's own place")
        panel.set(xlabel="camera azimuth, degrees")
        panel.legend()
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
