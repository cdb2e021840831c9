"""Turn episode records into the table, the summary and the plot."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import jepa_gym
from jepa_gym.benchmarks.intervals import wilson
from jepa_gym.files import atomic_write

NEAR_M = 0.03
"""The stricter radius that reach reports beside its 4 cm."""
PACKAGES = ("gymnasium", "mujoco", "numpy", "robosuite", "scipy", "stable-baselines3", "torch")
HEADER = (
    "agent",
    "task",
    "object",
    "goal",
    "n",
    "success at end",
    "95 % interval",
    "success once",
    "< 3 cm",
    "median distance",
    "s/action",
)
FOOTNOTE = (
    "goal: what shows the agent its goal; image+gripper adds the goal's gripper opening to the "
    "planner's cost,\nstate is no image at all. random ignores the goal, scripted reads the "
    "simulator. distance: reach, hand to goal;\ngrasp, what the lift lacks (4 cm if the object is "
    "not held)."
)

Record = dict[str, Any]


def rows(records: Sequence[Record]) -> list[Record]:
    """Aggregate the episodes of every cell.

    Args:
        records: Episode records as `runner.run_episode` makes them.

    Returns:
        One row a cell, in the order of first appearance.
    """
    cells: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        key = tuple(record[name] for name in ("agent", "task", "object", "goal"))
        cells.setdefault(key, []).append(record)
    return [_row(episodes) for episodes in cells.values()]


def _row(episodes: Sequence[Record]) -> Record:
    """Aggregate the episodes of one cell."""
    first, number = episodes[0], len(episodes)
    successes = sum(episode["success_at_end"] for episode in episodes)
    finals = np.array([episode["final_distance_m"] for episode in episodes])
    return {
        **{name: first[name] for name in ("agent", "task", "object", "goal")},
        "episodes": number,
        "success_at_end": successes / number,
        "success_once": sum(episode["success_once"] for episode in episodes) / number,
        "ci95": list(wilson(successes, number)),
        "within_3cm_at_end": float((finals <= NEAR_M).mean()) if first["task"] == "reach" else None,
        "median_final_distance_m": float(np.median(finals)),
        "seconds_per_action": float(np.mean([e["seconds_per_action"] for e in episodes])),
    }


def table(lines: Sequence[Record]) -> str:
    """Format rows for the terminal.

    Args:
        lines: Rows as `rows` makes them.

    Returns:
        The table with a footnote.
    """
    cells = [HEADER, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in cells]
    text.insert(1, "-" * len(text[0]))
    return "\n".join([*(line.rstrip() for line in text), "", FOOTNOTE])


def _cells(row: Record) -> tuple[str, ...]:
    """Return one row's texts in the order of `HEADER`."""
    low, high = row["ci95"]
    near = row["within_3cm_at_end"]
    return (
        row["agent"],
        row["task"],
        row["object"],
        row["goal"],
        str(row["episodes"]),
        f"{row['success_at_end']:.0%}",
        f"{low:.0%} to {high:.0%}",
        f"{row['success_once']:.0%}",
        "" if near is None else f"{near:.0%}",
        f"{row['median_final_distance_m'] * 100:.1f} cm",
        f"{row['seconds_per_action']:.3f}",
    )


def summary(lines: Sequence[Record], settings: Record, checkpoint: Path | None) -> Record:
    """Collect everything that a number in the table depends on.

    Args:
        lines: Rows as `rows` makes them.
        settings: Arguments and constants of the run (JSON types).
        checkpoint: Folder of the world model, if one took part.

    Returns:
        The content of `summary.json`.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "rows": list(lines),
        "settings": settings,
        "checkpoint": None if checkpoint is None else checkpoint_hashes(checkpoint),
        "versions": {"jepa-gym": jepa_gym.__version__, "python": platform.python_version()}
        | versions,
        "machine": f"{platform.machine()} {platform.system()}",
    }


def checkpoint_hashes(folder: Path) -> Record:
    """Return SHA-256 hashes of a checkpoint's configuration and weights."""
    names = ("config.json", "model.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def write_json(content: Record, path: Path) -> None:
    """Write JSON for humans and programs alike, complete or not at all."""
    with atomic_write(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n")


def write_plot(lines: Sequence[Record], records: Sequence[Record], path: Path) -> None:
    """Draw success with its intervals, and the distance over the steps of each task.

    Args:
        lines: Rows as `rows` makes them.
        records: The episode records.
        path: Image file to write.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(line["task"] for line in lines))
    figure = Figure(figsize=(6 + 4 * len(tasks), 1.5 + 0.35 * max(6, len(lines))), dpi=120)
    bars, *panels = figure.subplots(
        1, 1 + len(tasks), width_ratios=[1.2] + [1] * len(tasks), squeeze=False
    )[0]
    names = [f"{line['agent']} {line['task']} {line['object']} ({line['goal']})" for line in lines]
    rates = np.array([line["success_at_end"] for line in lines])
    spread = np.abs(np.array([line["ci95"] for line in lines]).T - rates)
    bars.barh(names, rates, xerr=spread, color=[f"C{i}" for i in range(len(lines))], capsize=3)
    bars.set(xlim=(0, 1.02), xlabel="success at end (95 % Wilson interval)")
    bars.invert_yaxis()
    for panel, task in zip(panels, tasks, strict=True):
        for index, line in enumerate(lines):
            if line["task"] == task:
                panel.plot(_median_distance_cm(line, records), color=f"C{index}", marker=".")
        panel.set(title=task, xlabel="step", ylabel="median distance, cm", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path)


def _median_distance_cm(line: Record, records: Sequence[Record]) -> np.ndarray:
    """Return the median distance of a row's episodes at every step, in centimetres."""
    key = ("agent", "task", "object", "goal")
    episodes = [r["distances_m"] for r in records if all(r[name] == line[name] for name in key)]
    return np.median(np.array(episodes), axis=0) * 100
