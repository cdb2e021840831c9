"""Confidence intervals of success rates and of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import binomtest


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a success rate.

    Args:
        successes: Number of successes, in [0, trials].
        trials: Number of trials, at least 1.
        confidence: Coverage, in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: If the counts do not fit.

    Reference:
        Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"`successes` must be in [0, trials] and `trials` at least 1, got {successes} of "
            f"{trials}."
        )
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(
    first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return how much more often the second of two agents succeeds, on the same episodes.

    Args:
        first: (N,) successes of the one, N >= 1.
        second: (N,) successes of the other, on the same seeds in the same order.
        confidence: Coverage, in (0, 1).

    Returns:
        Rate of `second` minus that of `first`, and the lower and upper end of its interval, all in
        [-1, 1].

    Raises:
        ValueError: If the lengths differ or are 0.

    Reference:
        Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10: Wilson intervals of both
        rates, joined by their correlation.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"Paired successes must be as many, at least 1: got {len(first)} and {len(second)}."
        )
    n = len(first)
    both = sum(a and b for a, b in zip(first, second, strict=True))
    neither = sum(not (a or b) for a, b in zip(first, second, strict=True))
    ones, others = sum(map(bool, first)), sum(map(bool, second))
    covariance = both * neither - (ones - both) * (others - both)
    if covariance > 0:  # a continuity correction, for positive correlations only
        covariance = max(covariance - n / 2, 0)
    spread = math.sqrt(ones * (n - ones) * others * (n - others))
    correlation = covariance / spread if spread else 0.0
    (low_1, high_1), (low_2, high_2) = wilson(ones, n, confidence), wilson(others, n, confidence)
    rate_1, rate_2 = ones / n, others / n

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a**2 - 2 * correlation * a * b + b**2))

    below = distance(rate_2 - low_2, high_1 - rate_1)
    above = distance(high_2 - rate_2, rate_1 - low_1)
    difference = rate_2 - rate_1
    return difference, max(-1.0, difference - below), min(1.0, difference + above)
