"""Violation of expectation: does a model find the impossible more surprising than the possible?

`python benchmarks/surprise.py` makes impossible clips in the simulator, each with a possible twin
(`jepa_gym.benchmarks.violations`), in the plain scene, with box and cup, while the arm moves. The
score of a clip is its most surprising frame (`jepa_gym.training.recipes.surprise`); which errors
are usual is learned from ordinary clips of other seeds. Writes, under `results/surprise/`, one JSON
line a pair (`pairs.jsonl`), `summary.json`, `usual.npz`, which `jepa-gym surprise --usual` takes,
and a picture of one pair of each kind.

AUC is the chance that an impossible clip surprises more than a possible one, over all pairs of the
kind and not only of twins; "twins" is the share of twins where it does.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jepa_gym.benchmarks import report, violations
from jepa_gym.benchmarks.episodes import HELD_OUT_SEEDS
from jepa_gym.benchmarks.intervals import auc, wilson
from jepa_gym.benchmarks.options import at_least, known_names
from jepa_gym.benchmarks.results import Record, Results, write_json
from jepa_gym.benchmarks.runner import run_jobs
from jepa_gym.benchmarks.settings import versions
from jepa_gym.benchmarks.tables import aligned
from jepa_gym.checkpoint.digests import file_digest
from jepa_gym.checkpoint.sources import locate
from jepa_gym.commands import run_command
from jepa_gym.config import FrameSpec

_LOG = logging.getLogger(__name__)

ORDINARY_SEEDS, DEVELOPMENT_SEEDS = 600_000, 500_000
"""First seeds of the clips that tell what is usual, and of those that the method was chosen by."""
OBJECTS = ("box", "cup")
USUAL_FILE = "usual.npz"
ALL = "all"


@dataclass(frozen=True)
class Arguments:
    """Measure violation of expectation: AUC of each kind of impossible event."""

    model: str = "default"
    """A world model, or the output of `jepa-gym pretrain`."""
    kinds: tuple[str, ...] = tuple(violations.KINDS)
    """What happens, see `jepa_gym.benchmarks.violations`."""
    objects: tuple[str, ...] = OBJECTS
    """Objects of the catalogue."""
    pairs: int = 50
    """Pairs of each kind and object."""
    ordinary: int = 100
    """Ordinary clips of each object."""
    development: bool = False
    """Use the seeds for trying things instead of the held-out ones."""
    output: Path = Path("results/surprise")
    """Folder for the results. What is finished there is not run again."""
    overwrite: bool = False
    """Delete results in the folder of another model, version or environment."""
    workers: int = 2
    """Processes of one thread each."""

    def __post_init__(self) -> None:
        """Check numbers and names.

        Raises:
            ValueError: If one is not allowed.
        """
        at_least(self, pairs=1, ordinary=1, workers=1)
        known_names("kinds", self.kinds, violations.KINDS)
        from jepa_gym.envs.physics import objects

        known_names("objects", self.objects, objects.OBJECTS)


@dataclass(frozen=True, slots=True)
class PairJob:
    """One pair to make and to watch."""

    kind: str
    object: str
    seed: int
    model: str
    usual: Path
    picture: Path | None = None

    @property
    def identity(self) -> Record:
        """What tells it from the other pairs."""
        return {"kind": self.kind, "object": self.object, "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.kind} with the {self.object}, seed {self.seed}"


@functools.cache
def watcher(model: str) -> Any:
    """Return this process's model."""
    from jepa_gym.training.recipes.surprise import open_watcher

    return open_watcher(model)


@functools.cache
def environment(obj: str, frame: FrameSpec) -> Any:
    """Return this process's environment with an object, as a model expects it."""
    from jepa_gym.training.collection.explorers import exploration_env

    return exploration_env("grasp", obj=obj, **frame.env_kwargs() | {"state_convention": "hand"})


def learn_usual(arguments: Arguments) -> Path:
    """Learn from ordinary clips which errors are usual; return the file that tells it."""
    from jepa_gym.training.recipes.surprise import UsualErrors

    path, watching = arguments.output / USUAL_FILE, watcher(arguments.model)
    clips = (
        violations.ordinary_clip(environment(obj, watching.frame), ORDINARY_SEEDS + number)
        for obj in arguments.objects
        for number in range(arguments.ordinary)
    )
    errors = [watch(watching, clip) for clip in clips]
    UsualErrors.fit(errors).save(path)
    return path


def watch(watching: Any, clip: violations.Clip) -> Any:
    """Return the errors of a model that sees a clip, with states in its own convention."""
    from jepa_gym.envs.droid import to_droid

    droid = watching.frame.state_convention == "droid"
    states = np.stack([to_droid(x) for x in clip.states]) if droid else clip.states
    return watching.watch(clip.frames, states)


def run_pair(job: PairJob) -> Record:
    """Make a pair, watch it, and draw it if the job asks for that.

    Returns:
        Surprise of every frame of both clips, and the moment of the violation (JSON types).
    """
    from jepa_gym.training.recipes.surprise import UsualErrors, frame_surprise
    from jepa_gym.training.recipes.surprise_plot import Curve, draw_surprise
    from jepa_gym.training.recipes.surprise_video import NORMALISED

    watching, usual = watcher(job.model), UsualErrors.load(job.usual)
    pair = violations.make_pair(environment(job.object, watching.frame), job.kind, job.seed)
    curves = {}
    for name, clip in (("possible", pair.possible), ("impossible", pair.impossible)):
        errors = watch(watching, clip)
        curves[name] = Curve(clip.frames, errors.first, frame_surprise(usual.beyond(errors)))
    if job.picture is not None:
        title = f"{job}, {job.model}"
        draw_surprise(job.picture, title, curves, watching.frame.step_s, NORMALISED, pair.moment)
    frames = {name: np.round(curve.scores, 4).tolist() for name, curve in curves.items()}
    return {"moment": pair.moment, "first": curves["possible"].first} | frames


def row(records: Sequence[Record], kind: str, obj: str) -> Record:
    """Aggregate pairs.

    Args:
        records: One or more pairs.
        kind: What the row is called.
        obj: Likewise.
    """
    possible, impossible = (
        np.array([max(record[name]) for record in records]) for name in ("possible", "impossible")
    )
    right = int((impossible > possible).sum())
    area, low, high = auc(impossible, possible)
    return {
        "kind": kind,
        "object": obj,
        "pairs": len(records),
        "auc": area,
        "ci95": [low, high],
        "twins": right / len(records),
        "twins_ci95": list(wilson(right, len(records))),
    }


def rows(records: Sequence[Record]) -> list[Record]:
    """Return the rows of the table: each kind with all objects and with each, then all kinds."""
    found = []
    for kind in (*dict.fromkeys(record["kind"] for record in records), ALL):
        mine = [record for record in records if kind in (ALL, record["kind"])]
        objects = list(dict.fromkeys(record["object"] for record in mine))
        found.append(row(mine, kind, ALL))
        for obj in objects if len(objects) > 1 else ():
            found.append(row([record for record in mine if record["object"] == obj], kind, obj))
    return found


def table(lines: Sequence[Record]) -> str:
    """Format rows for the terminal."""
    cells = [("kind", "object", "pairs", "AUC", "95 % interval", "twins", "95 % interval")]
    for line in lines:
        (low, high), (least, most) = line["ci95"], line["twins_ci95"]
        cells.append(
            (
                line["kind"], line["object"], str(line["pairs"]), f"{line['auc']:.3f}",
                f"{low:.3f} to {high:.3f}", f"{line['twins']:.0%}", f"{least:.0%} to {most:.0%}",
            )
        )  # fmt: skip
    return aligned(cells)


def settings_of(arguments: Arguments) -> Record:
    """Return what decides the numbers."""
    from jepa_gym.training.recipes import surprise

    source = locate(arguments.model)
    files = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
    code = [Path(str(module.__file__)) for module in (violations, surprise)]
    return versions() | {
        "environment": watcher(arguments.model).frame.env_kwargs(),
        "model": {file.name: file_digest(file) for file in files},
        "surprise": {file.name: file_digest(file) for file in code},
        "objects": list(arguments.objects),
        "ordinary": arguments.ordinary,
        "first seed": DEVELOPMENT_SEEDS if arguments.development else HELD_OUT_SEEDS,
    }


def run(arguments: Arguments) -> list[Record]:
    """Make and watch all pairs, write the files and print the table.

    Returns:
        The rows of the table.

    Raises:
        BenchmarkError: If a pair fails; the finished ones are kept.
        ResultsError: If the folder has results that must not be mixed with these.
    """
    begin, output = time.perf_counter(), arguments.output
    settings = settings_of(arguments)
    with Results(output, "pairs.jsonl", settings, arguments.overwrite) as results:
        usual = learn_usual(arguments)
        jobs = [
            PairJob(
                kind, obj, settings["first seed"] + number, arguments.model, usual,
                output / f"{kind}-{obj}.png" if number == 0 else None,
            )
            for kind in arguments.kinds
            for obj in arguments.objects
            for number in range(arguments.pairs)
        ]  # fmt: skip
        records = run_jobs(jobs, results, run_pair, arguments.workers, "pairs")
        lines = rows(records)
        print(table(lines))
        asked = report.arguments_of(arguments, begin)
        write_json(report.summary(lines, results.settings, asked), output / "summary.json")
    _LOG.info(f"{len(records)} pairs in {asked['wall_s']:.0f} s; results in {output}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with the given flags, or those of the process; return the status."""
    return run_command(run, Arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
