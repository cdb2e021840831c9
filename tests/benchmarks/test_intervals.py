from __future__ import annotations

import pytest

from jepa_gym.benchmarks.intervals import wilson


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
