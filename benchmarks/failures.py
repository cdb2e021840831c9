"""Pictures of failed episodes: what was asked, where it began and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from jepa_gym.benchmarks.report import CELL
from jepa_gym.benchmarks.results import Record
from jepa_gym.files import atomic_write

FOLDER = "failures"
SHEET = "failures.png"
COLUMNS = 5
"""Failures that are shown of a row, those with the lowest seeds."""
MOST_ROWS = 24
GAP_PX = 4


def photograph(pictures: Sequence[np.ndarray], path: Path) -> None:
    """Write pictures of one size side by side.

    Args:
        pictures: Each (Y, X, 3) uint8.
        path: PNG file to write, complete or not at all.
    """
    gap = np.full((len(pictures[0]), GAP_PX, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)][:-1]
    with atomic_write(path) as file:
        iio.imwrite(file, np.concatenate(parts, axis=1), extension=".png")


def write_sheet(rows: Mapping[str, Record], records: Sequence[Record], output: Path) -> None:
    """Draw the failures of every row that has photographs, the worst rows first.

    Args:
        rows: The table's rows, by the beginning of their photographs' names.
        records: The episode records.
        output: Folder of the results; nothing is drawn if it has no photographs of these rows.
    """
    from matplotlib.figure import Figure

    folder = output / FOLDER
    found: list[tuple[Record, list[tuple[Record, Path]]]] = []
    for name, row in rows.items():
        mine = [r for r in records if all(r[key] == row[key] for key in CELL)]
        failed = sorted((r for r in mine if not r["success_at_end"]), key=lambda r: r["seed"])
        shots = [(r, folder / f"{name}_{r['seed']}.png") for r in failed]
        if shots := [(record, path) for record, path in shots if path.is_file()]:
            found.append((row, shots[:COLUMNS]))
    if not found:
        return
    found.sort(key=lambda item: item[0]["success_at_end"])
    found = found[:MOST_ROWS]
    figure = Figure(figsize=(3.3 * COLUMNS, 1.2 + 1.6 * len(found)), dpi=100, layout="constrained")
    figure.suptitle("Failed episodes: goal image, start and end of each")
    panels = figure.subplots(len(found), COLUMNS, squeeze=False)
    for (row, shots), line in zip(found, panels, strict=True):
        for axes in line:
            axes.axis("off")
        for axes, (record, path) in zip(line, shots, strict=False):
            axes.imshow(iio.imread(path))
            distance = record["final_distance_m"]
            far = "" if distance is None else f", {100 * distance:.1f} cm"
            axes.set_title(f"seed {record['seed']}: {record['failure']}{far}", fontsize=8)
        told = f"{row['agent']} {row['task']} {row['object']} {row['split']} {row['start']}"
        rate = f"{row['goal']}: {row['success_at_end']:.0%} of {row['episodes']} succeed"
        line[0].text(0, -0.08, f"{told}, {rate}", fontsize=8, va="top", transform=line[0].transAxes)
    with atomic_write(output / SHEET) as file:
        figure.savefig(file)
