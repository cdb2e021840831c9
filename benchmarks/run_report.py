"""One HTML page for a training run or the results of a benchmark: `jepa-gym report FOLDER`.

The page is a single file: pictures and videos are in it, and nothing is fetched when it is opened.
Failures stand first.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jepa_gym.benchmarks import page, report
from jepa_gym.benchmarks.results import Record
from jepa_gym.commands import run_command
from jepa_gym.files import parse_json

_LOG = logging.getLogger(__name__)

SUMMARY, LOG, SETTINGS = "summary.json", "log.jsonl", "settings.json"
FIRST = ("failures.png", "plot.png")
"""Pictures that are shown before all others."""
MOST_VIDEOS = 40
NO_CURVES = ("step", "epoch", "time", "elapsed_s")


@dataclass(frozen=True)
class Arguments:
    """Write one self-contained HTML page about a training run or a benchmark's results."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run (`log.jsonl`) or of results (`summary.json`)."""
    output: Path | None = None
    """HTML file; `report.html` in the folder by default."""


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the page.

    Args:
        folder: Of a training run or of results.
        output: HTML file, `report.html` in the folder by default.

    Returns:
        The file.

    Raises:
        FileNotFoundError: If the folder is neither.
        ValueError: If a file in it is damaged.
    """
    if (folder / SUMMARY).is_file():
        parts = _results(folder)
    elif (folder / LOG).is_file():
        parts = _training(folder)
    else:
        raise FileNotFoundError(
            f"{folder} has neither {SUMMARY} (of a benchmark) nor {LOG} (of a training)"
        )
    target = output or folder / "report.html"
    page.write_page(target, f"Report of {folder.name}", parts)
    return target


def _results(folder: Path) -> list[str]:
    summary = _read(folder / SUMMARY)
    parts = []
    rows = summary.get("rows")
    if rows and set(report.CELL) <= rows[0].keys():
        parts += [page.heading("Results"), page.table(report.table_lines(rows))]
        parts += [page.paragraph(report.FOOTNOTE)]
    parts += _media(folder)
    told = summary if not rows else {k: x for k, x in summary.items() if k != "rows"}
    return [*parts, page.heading("Settings, versions and hashes"), _json(told)]


def _training(folder: Path) -> list[str]:
    lines = [_parsed(line, folder / LOG) for line in (folder / LOG).read_text().splitlines()]
    parts = [page.heading("Curves"), *_curves(lines)]
    evaluated = [line for line in lines if len(line) > 2]
    if evaluated:
        last = [(name, f"{x:.5g}" if isinstance(x, float) else str(x))
                for name, x in evaluated[-1].items()]  # fmt: skip
        parts += [page.heading("The last evaluation"), page.table([("figure", "value"), *last])]
    parts += _media(folder)
    if (folder / SETTINGS).is_file():
        parts += [page.heading("Settings"), _json(_read(folder / SETTINGS))]
    for card in sorted(folder.glob("README.md")):
        parts += [page.heading("Card"), page.preformatted(card.read_text())]
    return parts


def _media(folder: Path) -> list[str]:
    """Return pictures, the failures first, and videos."""
    pictures = sorted(folder.glob("*.png"), key=lambda path: (path.name not in FIRST, path.name))
    videos = sorted((folder / "videos").glob("*.mp4"))[:MOST_VIDEOS]
    shown = [page.media(path, path.stem.replace("_", " ")) for path in (*pictures, *videos)]
    return [page.heading("Pictures and videos"), *shown] if shown else []


def _curves(lines: Sequence[Record]) -> list[str]:
    """Return a picture of each number that was logged, over the steps."""
    from matplotlib.figure import Figure

    series: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in NO_CURVES and isinstance(value, int | float) and "step" in line:
                series.setdefault(name, []).append((line["step"], value))
    drawn = {name: points for name, points in series.items() if len(points) > 1}
    if not drawn:
        return [page.paragraph("Nothing was logged twice yet.")]
    rows = -(-len(drawn) // 3)
    figure = Figure(figsize=(13, 2.6 * rows), dpi=90, layout="constrained")
    panels: Any = figure.subplots(rows, 3, squeeze=False).ravel()
    for panel in panels[len(drawn) :]:
        panel.axis("off")
    for panel, (name, points) in zip(panels, drawn.items(), strict=False):
        panel.plot(
            *zip(*points, strict=True), color="#0072B2", marker="." if len(points) < 40 else ""
        )
        panel.set(title=name, xlabel="step")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return [page.picture(stream.getvalue(), "what was logged, over the optimiser's steps")]


def _read(path: Path) -> Record:
    return _parsed(path.read_text(), path)


def _parsed(text: str, path: Path) -> Record:
    try:
        return dict(parse_json(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _json(content: Any) -> str:
    return page.preformatted(json.dumps(content, indent=1))


def run(arguments: Arguments) -> Path:
    """Write the page and say where it is."""
    path = write_report(arguments.folder, arguments.output)
    _LOG.info(f"wrote {path}")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
