"""Comparing agents over several tasks: robust means, profiles, tests corrected for their number.

Reference: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice
    (arXiv 2108.13264): interquartile mean, performance profiles, stratified bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import binomtest

BLOCKS = 5
"""Parts of equal size that the episodes of a task are split into; the success rate of each is one
score, as that of a run is in the reference."""
RESAMPLES = 2000


def interquartile_mean(scores: np.ndarray) -> float:
    """Return the mean of the middle half of all scores (...), the lowest and highest quarter cut.

    Where the quarters split a score, it counts in part.
    """
    ordered = np.sort(np.asarray(scores, float).ravel())
    number = len(ordered)
    places = np.arange(number)
    weights = np.clip(
        np.minimum(places + 1, 0.75 * number) - np.maximum(places, 0.25 * number), 0, 1
    )
    return float(ordered @ weights / weights.sum())


def block_scores(successes: Sequence[bool], blocks: int = BLOCKS) -> np.ndarray:
    """Return the success rates (blocks,) of parts of the episodes, at most one for each."""
    parts = np.array_split(np.asarray(successes, float), min(blocks, len(successes)))
    return np.array([part.mean() for part in parts])


def bootstrap(
    tasks: Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], float] = interquartile_mean,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Return a statistic of the scores of several tasks, and its 95 % interval.

    Args:
        tasks: The scores (K,) of each task.
        statistic: Of all scores together.
        seed: Of the resampling, which draws scores within each task.
    """
    rng = np.random.default_rng(seed)
    values = [
        statistic(np.concatenate([rng.choice(scores, len(scores)) for scores in tasks]))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return statistic(np.concatenate(list(tasks))), float(low), float(high)


def profile(tasks: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """Return the share (M,) of scores above each threshold (M,), every task counting alike."""
    return np.mean([(scores[:, None] > thresholds).mean(0) for scores in tasks], axis=0)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the exact two-sided p-value that two agents succeed equally often.

    Args:
        first: (N,) successes of the one.
        second: (N,) successes of the other, on the same seeds in the same order.

    Reference:
        McNemar, Psychometrika 12 (1947), 153-157: only the pairs that differ tell.
    """
    better = sum(b and not a for a, b in zip(first, second, strict=True))
    worse = sum(a and not b for a, b in zip(first, second, strict=True))
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values corrected for their number, so that the family's error stays in bounds.

    Reference:
        Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    order, corrected, highest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
