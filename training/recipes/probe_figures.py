"""How good a probe is: figures with intervals, and a picture of its mistakes.

Clips of one recording are alike, so intervals come from a bootstrap over recordings: whole
recordings are drawn with replacement, and the figure is computed anew. Beside the share of correct
clips stands its Wilson interval, which counts every clip as a trial of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from jepa_gym.files import atomic_write

RESAMPLES = 2000
COVERAGE = 0.95
BEST = 5
"""Of recall@5."""
MOST_WRITTEN = 20
"""Classes up to which every cell of a confusion matrix has its number."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe said about clips, for one of its outputs; unknown labels are left out."""

    truth: np.ndarray
    """(n,) class numbers, or (n, K) numbers in their unit."""
    said: np.ndarray
    """(n, classes) logits, or (n, K) numbers."""
    groups: np.ndarray
    """(n,) names of the recordings that the clips are from."""

    @property
    def hits(self) -> np.ndarray:
        """(n,) whether the likeliest class is the right one."""
        return self.said.argmax(1) == self.truth

    @property
    def distance(self) -> np.ndarray:
        """(n,) how far the numbers are from the true ones."""
        return np.linalg.norm(self.said - self.truth, axis=1)


def classification(reading: Reading, classes: Sequence[str]) -> dict[str, Any]:
    """Measure a classifier.

    Args:
        reading: What it said.
        classes: Their names.

    Returns:
        In percent: `top1`, `class_mean` (mean over classes of the share that is found) and
        `recall_at_5` (the same among the five likeliest), each with its `interval`; `top1` with
        `wilson`, too; `most_frequent`, what naming the commonest class would give; `clips`,
        `recordings`, and how many clips there are of each class.
    """
    counts = np.bincount(reading.truth, minlength=len(classes))
    best = np.argsort(-reading.said, axis=1)[:, :BEST] == reading.truth[:, None]
    found = {"top1": None, "class_mean": reading.hits, "recall_at_5": best.any(1)}
    figures: dict[str, Any] = {}
    for name, hits in found.items():
        if hits is None:
            figures[name] = _mean(100.0 * reading.hits, reading.groups)
        else:
            figures[name] = _class_mean(hits, reading.truth, len(classes), reading.groups)
    interval = binomtest(int(reading.hits.sum()), len(reading.hits)).proportion_ci(
        COVERAGE, method="wilson"
    )
    figures["top1"]["wilson"] = [_rounded(100 * end) for end in (interval.low, interval.high)]
    return figures | {
        "most_frequent": _rounded(100 * counts.max() / counts.sum()),
        **_sizes(reading),
        "classes": {name: int(n) for name, n in zip(classes, counts, strict=True)},
    }


def regression(reading: Reading, unit: str) -> dict[str, Any]:
    """Measure a regression.

    Args:
        reading: What it said.
        unit: Of the numbers.

    Returns:
        `mean_distance` with its `interval`, `median_distance`, `mean_guess` (what always naming the
        mean would give), all in `unit`; `clips` and `recordings`.
    """
    guess = np.linalg.norm(reading.truth - reading.truth.mean(0), axis=1)
    return {
        "mean_distance": _mean(reading.distance, reading.groups),
        "median_distance": _rounded(np.median(reading.distance)),
        "mean_guess": _rounded(guess.mean()),
        "unit": unit,
        **_sizes(reading),
    }


def difference(ours: Reading, theirs: Reading) -> dict[str, Any]:
    """Compare two probes on the same clips.

    Args:
        ours: Of the one.
        theirs: Of the other, on the same clips in the same order.

    Returns:
        The first one's figure minus the second one's, with its `interval`: of the share of correct
        clips in percentage points, or of the mean distance.
    """
    if ours.truth.ndim == 1:
        gained = 100.0 * ours.hits - 100.0 * theirs.hits
    else:
        gained = ours.distance - theirs.distance
    return _mean(gained, ours.groups)


def write_picture(
    path: Path, reading: Reading, names: Sequence[str], title: str, unit: str
) -> None:
    """Draw the confusion matrix of a classifier, or the scatter of a regression.

    Args:
        path: The PNG.
        reading: What the probe said.
        names: Of the classes, or of the numbers.
        title: Above the picture.
        unit: Of the numbers.
    """
    with matplotlib.rc_context({"font.size": 11}):
        if reading.truth.ndim == 1:
            figure = _confusion(reading, names)
        else:
            figure = _scatter(reading, names, unit)
        figure.suptitle(title)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=120)


def _confusion(reading: Reading, names: Sequence[str]) -> Figure:
    count = len(names)
    table = np.zeros((count, count))
    np.add.at(table, (reading.truth, reading.said.argmax(1)), 1)
    totals = table.sum(1)
    share = 100 * table / np.maximum(totals, 1)[:, None]
    side = min(16.0, 3.2 + 0.62 * count)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(picture, ax=axes, label="% of the clips of a row", shrink=0.8)
    axes.set_xlabel("the probe says")
    axes.set_ylabel("it is (clips)")
    if count <= MOST_WRITTEN:
        axes.set_xticks(range(count), names, rotation=45, ha="right")
        axes.set_yticks(
            range(count), [f"{x} ({int(n)})" for x, n in zip(names, totals, strict=True)]
        )
        for row, column in np.argwhere(share >= 0.5):
            colour = "white" if share[row, column] > 60 else "black"
            text = f"{share[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=colour)
    return figure


def _scatter(reading: Reading, names: Sequence[str], unit: str) -> Figure:
    figure = Figure(figsize=(4.2 * len(names) + 0.4, 4.6), layout="constrained")
    for number, axes in enumerate(figure.subplots(1, len(names), squeeze=False)[0]):
        truth, said = reading.truth[:, number], reading.said[:, number]
        low, high = min(truth.min(), said.min()), max(truth.max(), said.max())
        axes.plot([low, high], [low, high], color="0.6", linewidth=1)
        axes.plot(truth, said, ".", markersize=3, alpha=0.5)
        axes.set_aspect("equal")
        axes.set_xlabel(f"{names[number]}, {unit}")
        axes.set_ylabel(f"the probe's {names[number]}, {unit}")
    return figure


def _mean(values: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Return a mean over clips with its interval."""
    sums = _per_group(groups, values[:, None])
    counts = _per_group(groups, np.ones((len(values), 1)))
    ends = _bootstrap(sums, counts, lambda total, count: (total / count)[:, 0])
    return {"value": _rounded(values.mean()), "interval": ends}


def _class_mean(
    hits: np.ndarray, truth: np.ndarray, classes: int, groups: np.ndarray
) -> dict[str, Any]:
    """Return the mean over classes of the percentage of hits, with its interval."""
    one_hot = np.eye(classes)[truth]
    found, counts = _per_group(groups, one_hot * hits[:, None]), _per_group(groups, one_hot)

    def mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Average over the classes that were drawn."""
        share = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        return 100 * share.sum(1) / (count > 0).sum(1)

    value = mean(found.sum(0, keepdims=True), counts.sum(0, keepdims=True))[0]
    return {"value": _rounded(value), "interval": _bootstrap(found, counts, mean)}


def _per_group(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum values (n, K) over the clips of each recording, (G, K)."""
    names, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, index, values)
    return sums


def _bootstrap(
    sums: np.ndarray,
    counts: np.ndarray,
    figure: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> list[float]:
    """Return the ends of the percentile interval over resampled recordings."""
    size = len(sums)
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    values = figure(drawn @ sums, drawn @ counts)
    tail = 50 * (1 - COVERAGE)
    return [_rounded(x) for x in np.percentile(values, [tail, 100 - tail])]


def _sizes(reading: Reading) -> dict[str, int]:
    return {"clips": len(reading.truth), "recordings": len(set(reading.groups.tolist()))}


def _rounded(value: Any) -> float:
    return round(float(value), 3)
