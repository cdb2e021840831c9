"""How well imagined success agrees with real success, over policies and over episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from jepa_gym.benchmarks.results import Record


def pearson(real: Sequence[float], imagined: Sequence[float]) -> float:
    """Return Pearson's correlation of rates (P,); NaN where one of them never differs."""
    x, y = (np.asarray(rates, float) - np.mean(rates) for rates in (real, imagined))
    spread = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread > 1e-12 else math.nan


def fisher_interval(
    correlation: float, count: int, z: float = 1.959963984540054
) -> tuple[float, float]:
    """Return the interval of a correlation by Fisher's transformation.

    Args:
        correlation: In [-1, 1].
        count: Pairs it was computed from.
        z: Normal quantile, of 95 % by default.

    Returns:
        Lower and upper end; NaN for fewer than four pairs or no correlation.
    """
    if count < 4 or math.isnan(correlation):
        return math.nan, math.nan
    middle = math.atanh(min(1 - 1e-12, max(-1 + 1e-12, correlation)))
    reach = z / math.sqrt(count - 3)
    return math.tanh(middle - reach), math.tanh(middle + reach)


def rank_violation(real: Sequence[float], imagined: Sequence[float]) -> float:
    """Return the mean maximum rank violation of rates (P,).

    For every policy the largest real difference to another one that imagination ranks the other
    way round, averaged over policies; 0 where all ranks agree.

    Reference:
        SIMPLER (arXiv 2405.05941), section 4.
    """
    x, y = np.asarray(real, float), np.asarray(imagined, float)
    wrong = (x[:, None] < x) != (y[:, None] < y)
    return float((np.abs(x[:, None] - x) * wrong).max(1).mean())


def agreement(real: Sequence[float], imagined: Sequence[float]) -> Record:
    """Compare the rates of P policies.

    Returns:
        `pearson` with `fisher95`, `spearman`, `mmrv`, and `worst_drop_one`: the lowest Pearson
        correlation where one policy is left out. None where a number cannot be told.
    """
    number, whole = len(real), pearson(real, imagined)
    kept = [[i for i in range(number) if i != left] for left in range(number)]
    dropped = [pearson([real[i] for i in k], [imagined[i] for i in k]) for k in kept]
    ranked = number > 1 and not math.isnan(whole)
    found = {
        "pearson": whole,
        "fisher95": list(fisher_interval(whole, number)),
        "spearman": float(spearmanr(real, imagined).statistic) if ranked else math.nan,
        "mmrv": rank_violation(real, imagined),
        "worst_drop_one": min(dropped) if not any(map(math.isnan, dropped)) else math.nan,
    }
    return {name: _told(value) for name, value in found.items()}


def _told(value: float | list[float]) -> float | list[float] | None:
    """Return a number that JSON has, or None."""
    numbers = value if isinstance(value, list) else [value]
    return value if all(map(math.isfinite, numbers)) else None


def rates(real: Sequence[bool], imagined: Sequence[bool]) -> Record:
    """Compare the outcomes of the same episodes.

    Returns:
        `false_success`: share of the real failures that were imagined as successes; `missed`: share
        of the real successes that were not; None where there are none. `failures`, `successes`:
        their numbers.
    """
    pairs = list(zip(real, imagined, strict=True))
    failed, won = [i for r, i in pairs if not r], [i for r, i in pairs if r]
    return {
        "false_success": sum(failed) / len(failed) if failed else None,
        "missed": 1 - sum(won) / len(won) if won else None,
        "failures": len(failed),
        "successes": len(won),
    }
