"""Confidence intervals of success rates."""

from __future__ import annotations

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
