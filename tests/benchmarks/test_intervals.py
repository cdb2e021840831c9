from __future__ import annotations

import numpy as np
import pytest

from jepa_gym.benchmarks.intervals import auc, paired_difference, wilson


def test_known_values():
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)


def test_more_confidence_is_wider():
    low, high = wilson(7, 10)
    lower, higher = wilson(7, 10, confidence=0.99)
    assert lower < low < 0.7 < high < higher


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 5), (6, 5)])
def test_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="`successes` must be in"):
        wilson(successes, trials)


def paired(both: int, first: int, second: int, neither: int) -> tuple[float, float, float]:
    ones = [True] * (both + first) + [False] * (second + neither)
    others = [True] * both + [False] * first + [True] * second + [False] * neither
    return paired_difference(ones, others)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # Newcombe's tables, method 10
        ((36, 2, 12, 0), (0.20, 0.0569, 0.3404)),
        ((0, 0, 0, 50), (0.0, -0.0713, 0.0713)),
        ((53, 0, 1, 0), (0.0185, -0.0496, 0.0977)),
    ],
)
def test_paired_differences_have_the_published_intervals(counts, expected):
    assert paired(*counts) == pytest.approx(expected, abs=1e-4)
    both, first, second, neither = counts
    mirrored = paired(both, second, first, neither)
    assert mirrored == pytest.approx((-expected[0], -expected[2], -expected[1]), abs=1e-4)


def test_agreeing_pairs_narrow_the_interval():
    """What pairs are for: the same two rates, once on seeds that agree and once on others."""
    together, apart = paired(36, 2, 2, 10), paired(29, 9, 9, 3)
    assert together[0] == apart[0] == 0
    assert together[2] - together[1] < 0.7 * (apart[2] - apart[1])


def test_pairs_must_be_as_many():
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_difference([True, False], [True])
    with pytest.raises(ValueError, match="at least 1"):
        paired_difference([], [])


def test_area_counts_ties_half_and_has_an_interval_at_the_edge():
    assert auc([2.0, 3.0], [1.0, 2.0])[0] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    area, low, high = auc(np.arange(20) + 100.0, np.arange(20))
    assert area == high == 1.0 and 0.8 < low < 1.0
    area, low, high = auc(np.arange(20), np.arange(20) + 100.0)
    assert area == low == 0.0 and 0.0 < high < 0.2
    with pytest.raises(ValueError, match="both kinds"):
        auc([], [1.0])


def test_area_interval_covers():
    rng, true = np.random.default_rng(0), 0.7603  # of two normal distributions a deviation apart
    hits = 0
    for _ in range(300):
        _, low, high = auc(rng.normal(1, 1, 40), rng.normal(0, 1, 40))
        hits += low <= true <= high
    assert 0.92 <= hits / 300 <= 0.985
