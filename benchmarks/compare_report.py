"""What a comparison writes: Markdown, pictures and one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.benchmarks import page
from jepa_gym.benchmarks.over_tasks import profile
from jepa_gym.benchmarks.results import Record
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.files import atomic_write

COLUMNS: dict[str, Callable[[Record], str]] = {
    "world": lambda row: row["world"],
    "task": lambda row: row["task"],
    "object": lambda row: row["object"],
    "split": lambda row: row["split"],
    "agent": lambda row: row["agent"],
    "goal": lambda row: row["goal"],
    "n": lambda row: str(row["episodes"]),
    "success at end": lambda row: f"{row['success_at_end']:.0%}",
    "95 % interval": lambda row: f"{row['ci95'][0]:.0%} to {row['ci95'][1]:.0%}",
    "once": lambda row: f"{row['success_once']:.0%}",
    "steps to success": lambda row: _number(row["steps_to_success"], "{:.0f}"),
    "final distance": lambda row: _number(row["median_final_distance_m"], "{:.1f} cm", 100),
    "path": lambda row: _number(row["path_m"], "{:.2f} m"),
    "s/action": lambda row: f"{row['seconds_per_action']:.3f}",
    "recorded": lambda row: _number(row.get("recorded_episodes"), "{:,.0f} episodes"),
    "training": lambda row: _number(row.get("train_minutes"), "{:.0f} min"),
    "failures": lambda row: ", ".join(f"{n} {reason}" for reason, n in row["failures"].items()),
}
FOOTNOTE = (
    "Success at the end of the episode, with its Wilson interval. Steps to success, distance and "
    "path are medians; recorded and training are what the agent's networks were trained with, "
    "the world model's included."
)


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "" if value is None else form.format(value * factor)


def _lines(rows: Sequence[Record]) -> list[list[str]]:
    return [list(COLUMNS), *([text(row) for text in COLUMNS.values()] for row in rows)]


def text_table(rows: Sequence[Record]) -> str:
    """Format rows for the terminal."""
    return aligned(_lines(rows))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Format a table as Markdown; the first line holds the titles of the columns."""
    first, *others = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([first, "|" + "---|" * len(lines[0]), *others])


def comparison_lines(tests: Sequence[Record]) -> list[list[str]]:
    """Return the comparisons as a table's lines."""
    lines = [["task", "object", "split", "agent", "against", "difference", "95 % interval", "pairs",
              "p", "p, corrected"]]  # fmt: skip
    for one in tests:
        low, high = one["ci95"]
        lines.append([
            one["task"], one["object"], one["split"], one["agent"], one["reference"],
            f"{one['difference']:+.0%}", f"{low:+.0%} to {high:+.0%}", str(one["pairs"]),
            f"{one['p']:.2g}", f"{one['p_holm']:.2g}",
        ])  # fmt: skip
    return lines


def mean_lines(means: Sequence[Record]) -> list[list[str]]:
    """Return the interquartile means as a table's lines, the best first."""
    lines = [["agent", "interquartile mean", "95 % interval"]]
    for one in sorted(means, key=lambda one: -one["iqm"]):
        low, high = one["ci95"]
        lines.append([one["agent"], f"{one['iqm']:.0%}", f"{low:.0%} to {high:.0%}"])
    return lines


def write(summary: Record, output: Path) -> None:
    """Write `table.md`, the pictures and `report.html`.

    Args:
        summary: What `summary.json` holds.
        output: Folder of the results.
    """
    rows, tests, means = summary["rows"], summary["tests"], summary["over_tasks"]
    parts = [
        markdown(_lines(rows)),
        FOOTNOTE,
        markdown(comparison_lines(tests)),
        markdown(mean_lines(means)),
    ]
    with atomic_write(output / "table.md") as file:
        file.write_text("\n\n".join(parts) + "\n")
    _bars(rows, output / "success.png")
    _costs(rows, output / "cost.png")
    _profiles(means, output / "profiles.png")
    if summary["learning_curves"]:
        _learning(summary["learning_curves"], output / "learning.png")
    _page(summary, output)


def _page(summary: Record, output: Path) -> None:
    rows = summary["rows"]
    pictures = {
        "success.png": "Success at the end with 95 % intervals, by task and world",
        "cost.png": "Success in the simulator against time and imagined candidates per action",
        "profiles.png": "Over all tasks: interquartile means, and the share of scores above each",
        "learning.png": "Learners: success of evaluations over the environment steps learned from",
        "failures.png": "Failed episodes: goal image, start and end of each",
    }
    shown = [page.media(output / name, told) for name, told in pictures.items()
             if (output / name).is_file()]  # fmt: skip
    videos = sorted((output / "videos").glob("*.mp4"))
    settings = json.dumps({k: summary[k] for k in ("run", "settings", "machine")}, indent=1)
    page.write_page(
        output / "report.html",
        "Comparison of agents",
        [
            page.heading("Results"),
            page.table(_lines(rows)),
            page.paragraph(FOOTNOTE),
            page.heading("Pictures"),
            *shown,
            page.heading("Paired with the reference agent, p corrected by Holm"),
            page.table(comparison_lines(summary["tests"])),
            page.heading("Over all tasks"),
            page.table(mean_lines(summary["over_tasks"])),
            page.heading("The first episode of every row"),
            *(page.media(video, video.stem) for video in videos),
            page.heading("Settings, versions and hashes"),
            page.preformatted(settings),
        ],
    )


def _figure(width: float, height: float, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _colour(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](index % 20)


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as file:
        figure.savefig(file)


def _bars(rows: Sequence[Record], path: Path) -> None:
    """Draw success with intervals: a panel for each place, a bar for each world."""
    places = list(dict.fromkeys((r["task"], r["object"], r["split"]) for r in rows))
    agents = list(dict.fromkeys(row["agent"] for row in rows))
    figure, panels = _figure(2.5 + 3.6 * len(places), 1.6 + 0.36 * len(agents), len(places))
    for panel, place in zip(panels, places, strict=True):
        for offset, (world, colour) in zip((-0.2, 0.2), WORLD_COLOURS.items(), strict=True):
            mine = [
                r
                for r in rows
                if (r["task"], r["object"], r["split"]) == place and r["world"] == world
            ]
            if not mine:
                continue
            at = [agents.index(row["agent"]) + offset for row in mine]
            values = np.array([row["success_at_end"] for row in mine])
            ends = np.array([row["ci95"] for row in mine])
            spread = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
            panel.barh(at, 100 * values, 0.38, xerr=100 * spread, color=colour, label=world,
                       error_kw={"elinewidth": 0.8, "capsize": 2})  # fmt: skip
        panel.set_yticks(range(len(agents)), agents if panel is panels[0] else [""] * len(agents))
        number = next(r["episodes"] for r in rows if (r["task"], r["object"], r["split"]) == place)
        panel.set(
            xlim=(0, 101), xlabel="success at the end, %", title=f"{' '.join(place)}, n = {number}"
        )
        panel.invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    _save(figure, path)


WORLD_COLOURS = {"real": "#0072B2", "imagined": "#E69F00"}
"""Blue and orange of Okabe and Ito, which colour-blind people tell apart."""


def _costs(rows: Sequence[Record], path: Path) -> None:
    """Draw real success against seconds and candidates per action, a colour for each agent."""
    real = [row for row in rows if row["world"] == "real"]
    agents = list(dict.fromkeys(row["agent"] for row in real))
    tasks = list(dict.fromkeys(row["task"] for row in real))
    figure, panels = _figure(11, 4.6, 2)
    for panel, (key, label) in zip(
        panels,
        (("seconds_per_action", "seconds per action"), ("evaluations", "candidates per action")),
        strict=True,
    ):
        for row in real:
            if row[key]:
                index = agents.index(row["agent"])
                panel.plot(row[key], 100 * row["success_at_end"], color=_colour(index),
                           marker="osD^v"[tasks.index(row["task"]) % 5], linestyle="")  # fmt: skip
        panel.set(xscale="log", xlabel=label, ylabel="success at the end, %", ylim=(-3, 103))
    for index, agent in enumerate(agents):
        panels[1].plot([], [], color=_colour(index), marker="s", linestyle="", label=agent)
    for index, task in enumerate(tasks):
        panels[1].plot([], [], color="0.4", marker="osD^v"[index % 5], linestyle="", label=task)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    _save(figure, path)


def _profiles(means: Sequence[Record], path: Path) -> None:
    """Draw interquartile means with intervals, and performance profiles."""
    figure, (left, right) = _figure(11, 1.6 + 0.36 * max(6, len(means)), 2)
    ordered = sorted(means, key=lambda one: -one["iqm"])
    values = np.array([one["iqm"] for one in ordered])
    ends = np.array([one["ci95"] for one in ordered]).reshape(-1, 2)
    spread = np.clip([values - ends[:, 0], ends[:, 1] - values], 0, None)
    colours = [_colour(index) for index in range(len(ordered))]
    left.barh(range(len(ordered)), 100 * values, xerr=100 * spread, color=colours, capsize=2)
    left.set_yticks(range(len(ordered)), [one["agent"] for one in ordered])
    left.invert_yaxis()
    left.set(xlim=(0, 101), xlabel="interquartile mean of success, %")
    thresholds = np.linspace(0, 0.999, 200)
    for index, one in enumerate(ordered):
        shares = profile([np.array(scores) for scores in one["scores"]], thresholds)
        right.plot(100 * thresholds, 100 * shares, color=colours[index], label=one["agent"])
    right.set(xlabel="success, %", ylabel="scores above it, %", ylim=(-2, 102))
    right.legend(fontsize=7)
    _save(figure, path)


def _learning(curves: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Draw success over environment steps, at the end and once."""
    figure, (panel,) = _figure(6, 4, 1)
    for index, (name, curve) in enumerate(curves.items()):
        steps = [found["step"] for found in curve]
        for key, style in (("success_at_end", "-"), ("success_once", ":")):
            values = [100 * found[key] for found in curve]
            label = f"{name}, {key.replace('_', ' ')}"
            panel.plot(steps, values, style, color=_colour(2 * index), marker=".", label=label)
    panel.set(xlabel="environment steps", ylabel="success of evaluations, %", ylim=(-3, 103))
    panel.legend(fontsize=8)
    _save(figure, path)
