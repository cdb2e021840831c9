"""Turn episode records into the table, the summary and the plot."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.benchmarks.episodes import NOT_SHOWN, Cell
from jepa_gym.benchmarks.intervals import paired_difference, wilson
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.files import atomic_write

NEAR_M = 0.03
"""The stricter radius that reach reports beside its 4 cm."""
CELL = tuple(field.name for field in fields(Cell))
"""What tells a row of the table from all others."""
COLUMNS: dict[str, Callable[[Record], str]] = {
    "agent": lambda row: row["agent"],
    "task": lambda row: row["task"],
    "object": lambda row: row["object"],
    "split": lambda row: row["split"],
    "start": lambda row: row["start"],
    "goal": lambda row: row["goal"],
    "budget": lambda row: row["budget"],
    "candidates": lambda row: _number(row["evaluations"], "{:.0f}"),
    "n": lambda row: str(row["episodes"]),
    "success at end": lambda row: f"{row['success_at_end']:.0%}",
    "95 % interval": lambda row: f"{row['ci95'][0]:.0%} to {row['ci95'][1]:.0%}",
    "success once": lambda row: f"{row['success_once']:.0%}",
    "< 3 cm": lambda row: _number(row["within_3cm_at_end"], "{:.0%}"),
    "median distance": lambda row: _number(row["median_final_distance_m"], "{:.1f} cm", 100),
    "s/action": lambda row: f"{row['seconds_per_action']:.3f}",
    "failures": lambda row: ", ".join(f"{n} {reason}" for reason, n in row["failures"].items()),
}
FOOTNOTE = (
    'goal: what the agent is shown of its goal; "image x4 by time" is four images in turn.\n'
    "start far: the hand starts 20 to 30 cm from its goal or object.\n"
    "+gripper: the planner's cost also has the goal's gripper opening, so it is not image-only.\n"
    "distance: reach, hand to goal; grasp, what the lift lacks (4 cm if the object is not held);\n"
    "else object to goal."
)


def rows(records: Sequence[Record]) -> list[Record]:
    """Aggregate the episodes of every cell.

    Args:
        records: Episode records as `episodes.run_episode` makes them, with their identities.

    Returns:
        One row a cell, in the order of first appearance.
    """
    return [_row(episodes) for episodes in group(records, CELL).values()]


def group(records: Sequence[Record], names: Sequence[str]) -> dict[tuple[Any, ...], list[Record]]:
    """Return records by the values that they have under some names."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return groups


def _row(episodes: Sequence[Record]) -> Record:
    """Aggregate the episodes of one cell."""
    first, number = episodes[0], len(episodes)
    successes = sum(episode["success_at_end"] for episode in episodes)
    finals = [e["final_distance_m"] for e in episodes if e["final_distance_m"] is not None]
    near = np.mean(np.array(finals) <= NEAR_M) if finals and first["task"] == "reach" else None
    searched = [e["evaluations"] for e in episodes if e["evaluations"] is not None]
    failures = Counter(episode["failure"] for episode in episodes if episode["failure"])
    return {
        **{name: first[name] for name in (*CELL, "goal")},
        "episodes": number,
        "success_at_end": successes / number,
        "success_once": sum(episode["success_once"] for episode in episodes) / number,
        "ci95": list(wilson(successes, number)),
        "within_3cm_at_end": None if near is None else float(near),
        "median_final_distance_m": float(np.median(finals)) if finals else None,
        "evaluations": float(np.mean(searched)) if searched else None,
        "seconds_per_action": float(np.mean([e["seconds_per_action"] for e in episodes])),
        "failures": dict(sorted(failures.items(), key=lambda item: (-item[1], item[0]))),
    }


def comparisons(records: Sequence[Record]) -> list[Record]:
    """Compare agents that look for their goal, on the seeds that both have met.

    Args:
        records: The episode records.

    Returns:
        For every agent and budget but the first in the same task with the same goal images: the
        `difference` of its success from the first's with `ci95`, and the number of `pairs`.
    """
    same = tuple(name for name in CELL if name not in ("agent", "budget"))
    looking = [record for record in records if record["agent"] not in NOT_SHOWN]
    found = []
    for values, members in group(looking, (*same, "goal")).items():
        where = dict(zip((*same, "goal"), values, strict=True))
        reference, *others = group(members, ("agent", "budget")).items()
        for name, episodes in others:
            if (paired := pair(reference[1], episodes)) is not None:
                found.append(where | {"agent": name, "reference": reference[0]} | paired)
    return found


def pair(reference: Sequence[Record], episodes: Sequence[Record]) -> Record | None:
    """Return the difference of success from a reference on common seeds, None if there are none."""
    known = {record["seed"]: record["success_at_end"] for record in reference}
    mine = {record["seed"]: record["success_at_end"] for record in episodes}
    seeds = sorted(known.keys() & mine.keys())
    if not seeds:
        return None
    difference, *ends = paired_difference([known[s] for s in seeds], [mine[s] for s in seeds])
    return {"difference": difference, "ci95": ends, "pairs": len(seeds)}


def table(lines: Sequence[Record]) -> str:
    """Format rows for the terminal; columns that tell nothing are left out.

    Args:
        lines: Rows as `rows` makes them.

    Returns:
        The table with a footnote.
    """
    return f"{aligned(table_lines(lines))}\n\n{FOOTNOTE}"


def table_lines(lines: Sequence[Record]) -> list[tuple[str, ...]]:
    """Return the table as texts, the titles first; columns that tell nothing are left out."""
    columns = {title: [text(row) for row in lines] for title, text in COLUMNS.items()}
    silent = {"split": {"plain"}, "start": {"plain"}, "budget": {"default"}}
    if set(columns["budget"]) <= silent["budget"]:
        columns["candidates"] = []
    shown = {t: texts for t, texts in columns.items() if set(texts) - silent.get(t, set()) - {""}}
    return [tuple(shown), *zip(*shown.values(), strict=True)]


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor)


def comparison_lines(found: Sequence[Record]) -> list[str]:
    """Format comparisons for the terminal."""
    lines = []
    for row in found:
        names = (row["agent"], row["reference"])
        agent, reference = (" ".join(name).removesuffix(" default") for name in names)
        low, high = row["ci95"]
        lines.append(
            f"{agent} against {reference}, {row['task']} {row['object']} ({row['goal']}): "
            f"{row['difference']:+.0%}, {low:+.0%} to {high:+.0%}, {row['pairs']} common seeds"
        )
    return lines


def summary(lines: Sequence[Record], settings: Record, run: Record) -> Record:
    """Collect everything that a number in the table depends on.

    Args:
        lines: Rows as `rows` makes them.
        settings: What decides the numbers, as `results.Results` keeps it.
        run: What else to tell of the run, such as its arguments (JSON types).

    Returns:
        The content of `summary.json`.
    """
    machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}"
    return {"rows": list(lines), "settings": settings, "run": run, "machine": machine}


def arguments_of(arguments: Any, begin: float) -> Record:
    """Return what a run was asked for, and the seconds since `begin` (`time.perf_counter`)."""
    asked = {name: str(value) for name, value in asdict(arguments).items()}
    return asked | {"wall_s": round(time.perf_counter() - begin, 1)}


def write_plot(lines: Sequence[Record], records: Sequence[Record], path: Path) -> None:
    """Draw success with its intervals, and the distance over the steps of each task.

    Args:
        lines: Rows as `rows` makes them.
        records: The episode records.
        path: Image file to write, complete or not at all.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(line["task"] for line in lines))
    figure = Figure(figsize=(6 + 4 * len(tasks), 1.5 + 0.35 * max(6, len(lines))), dpi=120)
    bars, *panels = figure.subplots(
        1, 1 + len(tasks), width_ratios=[1.2] + [1] * len(tasks), squeeze=False
    )[0]
    rates = np.array([line["success_at_end"] for line in lines])
    spread = np.abs(np.array([line["ci95"] for line in lines]).T - rates).tolist()
    colours = [f"C{i}" for i in range(len(lines))]
    bars.barh(range(len(lines)), rates, xerr=spread, color=colours, capsize=3)
    bars.set_yticks(range(len(lines)), map(name, lines))
    bars.set(xlim=(0, 1.02), xlabel="success at end (95 % Wilson interval)")
    bars.invert_yaxis()
    episodes = group(records, CELL)
    for panel, task in zip(panels, tasks, strict=True):
        for colour, line in zip(colours, lines, strict=True):
            if line["task"] == task and line["median_final_distance_m"] is not None:
                mine = [e["distances_m"] for e in episodes[tuple(line[n] for n in CELL)]]
                panel.plot(100 * np.median(mine, axis=0), color=colour, marker=".")
        panel.set(title=task, xlabel="step", ylabel="median distance, cm", ylim=(0, None))
    figure.tight_layout()
    with atomic_write(path) as file:
        figure.savefig(file)


def name(line: Record) -> str:
    """Return what a row is called in the plot."""
    parts = [line["agent"], line["task"], line["object"], line["split"], line["start"]]
    known = " ".join(part for part in parts if part not in ("-", "plain"))
    return f"{known} ({line['goal']})"
