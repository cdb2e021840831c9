"""Confidence intervals of success rates, of their differences, and of areas under ROC curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.optimize import root_scalar
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


def auc(
    positive: Sequence[float] | np.ndarray,
    negative: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Return the area under the ROC curve, and its interval.

    Args:
        positive: (M,) scores of what is to be found, M >= 1.
        negative: (N,) scores of the rest, N >= 1.
        confidence: Coverage, in (0, 1). Where positives and negatives are pairs, it is more.

    Returns:
        The chance that a positive scores higher than a negative, ties counted half, and the lower
        and upper end of its interval, all in [0, 1].

    Raises:
        ValueError: If one of them is empty.

    Reference:
        Newcombe, Statistics in Medicine 25 (2006), 559-573, method 5: the score interval with the
        variance of Hanley and McNeil, which is no single point where the area is 1.
    """
    m, n = len(positive), len(negative)
    if not m or not n:
        raise ValueError(f"An area needs scores of both kinds, got {m} and {n}.")
    above = np.asarray(positive)[:, None] - np.asarray(negative)
    area = float(((above > 0) + (above == 0) / 2).mean())
    z, more = NormalDist().inv_cdf((1 + confidence) / 2), (m + n) / 2 - 1

    def excess(true: float) -> float:
        spread = 1 + more * ((1 - true) / (2 - true) + true / (1 + true))
        return (area - true) ** 2 - z**2 * true * (1 - true) * spread / (m * n)

    edge = 1e-9  # at 0 and 1 themselves nothing is in excess
    low = root_scalar(excess, bracket=(0, min(area, 1 - edge))).root if area > 0 else 0.0
    high = root_scalar(excess, bracket=(max(area, edge), 1)).root if area < 1 else 1.0
    return area, low, high
